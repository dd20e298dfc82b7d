#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>

namespace emulated {

[[noreturn]] inline void fail(const std::string &why) {
    std::fprintf(stderr, "emulated GPU: %s\n", why.c_str());
    std::abort();
}

} // namespace emulated
