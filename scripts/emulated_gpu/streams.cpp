// The driver's streams and events.

#include "streams.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include "fail.h"
#include "memory.h"

using Clock = std::chrono::steady_clock;
using emulated::Lock, emulated::Order;

// A place in a stream, and whether all before it is done.
struct Mark {
    CUstream stream;
    bool done = false;
    Clock::time_point until; // where nothing is computed
};

struct CUstream_st {
    std::deque<std::function<void()>> work;
    Clock::time_point busy_until; // where nothing is computed
};

struct CUevent_st {
    std::shared_ptr<Mark> mark;
};

namespace {

std::set<CUstream> streams;

CUstream add_stream() {
    const Lock lock(emulated::everything);
    return *streams.insert(new CUstream_st).first;
}

// The default streams of a thread and, for all that name none, of the process.
CUstream resolved(CUstream stream) {
    static const CUstream of_process = add_stream();
    if (stream == CU_STREAM_PER_THREAD) {
        thread_local const CUstream of_thread = add_stream();
        return of_thread;
    }
    return stream == nullptr || stream == CU_STREAM_LEGACY ? of_process : stream;
}

void run_first(CUstream stream) {
    const std::function<void()> work = std::move(stream->work.front());
    stream->work.pop_front();
    work();
}

void run_all(CUstream stream) {
    while (!stream->work.empty()) run_first(stream);
}

void run_until(const Mark &mark) {
    while (!mark.done) run_first(mark.stream);
}

void be_busy(CUstream stream) {
    static const auto each = std::chrono::microseconds(emulated::of_environment("EMULATED_GPU_MICROSECONDS", 0));
    stream->busy_until = std::max(stream->busy_until, Clock::now()) + each;
}

} // namespace

namespace emulated {

std::recursive_mutex everything;

Order order() {
    static const Order order = [] {
        const char *named = std::getenv("EMULATED_GPU_ORDER");
        const std::string said = named ? named : "early";
        if (said == "early") return Order::Early;
        if (said == "late") return Order::Late;
        if (said == "never") return Order::Never;
        fail("EMULATED_GPU_ORDER is early, late or never");
    }();
    return order;
}

void enqueue(CUstream stream, std::function<void()> work) {
    if (order() != Order::Never) return enqueue_always(stream, std::move(work));
    const Lock lock(everything);
    be_busy(resolved(stream));
}

void enqueue_always(CUstream stream, std::function<void()> work) {
    const Lock lock(everything);
    stream = resolved(stream);
    stream->work.push_back(std::move(work));
    if (order() != Order::Late) run_all(stream);
}

void finish(CUstream stream) {
    Clock::time_point until;
    {
        const Lock lock(everything);
        stream = resolved(stream);
        run_all(stream);
        until = stream->busy_until;
    }
    std::this_thread::sleep_until(until);
}

void finish_all() {
    const Lock lock(everything);
    for (CUstream stream : streams) run_all(stream);
}

} // namespace emulated

extern "C" {

CUresult cuStreamCreate(CUstream *found, unsigned) {
    *found = add_stream();
    return CUDA_SUCCESS;
}
CUresult cuStreamDestroy_v2(CUstream stream) {
    const Lock lock(emulated::everything);
    run_all(stream);
    streams.erase(stream); // its memory stays: events may know it
    return CUDA_SUCCESS;
}
CUresult cuStreamSynchronize(CUstream stream) {
    emulated::finish(stream);
    const Lock lock(emulated::everything);
    emulated::memory().check();
    return CUDA_SUCCESS;
}
CUresult cuStreamIsCapturing(CUstream, CUstreamCaptureStatus *status) {
    *status = CU_STREAM_CAPTURE_STATUS_NONE;
    return CUDA_SUCCESS;
}
CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
    const Lock lock(emulated::everything);
    if (const std::shared_ptr<Mark> mark = event->mark) {
        emulated::enqueue_always(stream, [=] { run_until(*mark); });
        CUstream waits = resolved(stream);
        waits->busy_until = std::max(waits->busy_until, mark->until);
    }
    return CUDA_SUCCESS;
}

CUresult cuEventCreate(CUevent *event, unsigned) {
    *event = new CUevent_st;
    return CUDA_SUCCESS;
}
CUresult cuEventDestroy_v2(CUevent event) {
    const Lock lock(emulated::everything);
    delete event;
    return CUDA_SUCCESS;
}
CUresult cuEventRecord(CUevent event, CUstream stream) {
    const Lock lock(emulated::everything);
    stream = resolved(stream);
    const std::shared_ptr<Mark> mark = std::make_shared<Mark>(Mark{.stream = stream, .until = stream->busy_until});
    event->mark = mark;
    emulated::enqueue_always(stream, [=] { mark->done = true; });
    return CUDA_SUCCESS;
}
CUresult cuEventSynchronize(CUevent event) {
    std::shared_ptr<Mark> mark;
    {
        const Lock lock(emulated::everything);
        mark = event->mark;
        if (mark) run_until(*mark);
    }
    if (mark) std::this_thread::sleep_until(mark->until);
    return CUDA_SUCCESS;
}

} // extern "C"
