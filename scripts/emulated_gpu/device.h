#pragma once

namespace emulated {

// Whether this thread said which device it means, as nearly every call asks for.
bool has_context();

} // namespace emulated
