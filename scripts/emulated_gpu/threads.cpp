// Runs the blocks of a launch: several at a time, each on a thread of the system, its own threads as fibres of that one.
//
// Threads of a block run one after the other as far as each gets before it has to wait for others: those that never wait need no
// switch. Late order (streams.h) takes blocks and threads from the last to the first.

#include "threads.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include <sys/mman.h>

#include "launch.h"

thread_local uint3 threadIdx, blockIdx;
thread_local dim3 blockDim, gridDim;

// Keeps the registers that a call has to keep on the stack, leaves the stack's place in `*from`, and goes on with the stack `to`.
extern "C" void emulated_switch(void **from, void *to);
asm(R"(
.text
.globl emulated_switch
.type emulated_switch, @function
emulated_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulated_switch, . - emulated_switch
)");

namespace emulated {
namespace {

constexpr size_t STACK = 64 << 10;

// Where threads meet: all that have not ended.
struct Meeting {
    unsigned alive = 0, arrived = 0, round = 0;

    void end_if_all_arrived() {
        if (alive > 0 && arrived == alive) {
            arrived = 0;
            ++round;
        }
    }
};

void run_threads();

struct Fibre {
    char *stack = new_stack();
    void *at = nullptr;
    unsigned thread = 0; // that runs on it
    bool waits = false;  // for others

    Fibre() {
        // What `emulated_switch` takes from a stack: six registers, and where to go; a called function's stack is 8 off a multiple of 16.
        void **top = reinterpret_cast<void **>(stack + STACK - 16);
        *--top = nullptr;
        *--top = reinterpret_cast<void *>(run_threads);
        top -= 6;
        std::memset(top, 0, 6 * sizeof(void *));
        at = top;
    }
    ~Fibre() { munmap(stack, STACK); }
    Fibre(const Fibre &) = delete;

    // Its lowest page is nobody's.
    static char *new_stack() {
        void *stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stack == MAP_FAILED || mprotect(stack, 4096, PROT_NONE) != 0) {
            std::perror("emulated GPU: a stack");
            std::abort();
        }
        return static_cast<char *>(stack);
    }
};

// What a thread of the system runs.
struct Runner {
    std::vector<std::unique_ptr<Fibre>> fibres;
    std::vector<char> shared;
    void *scheduler = nullptr; // its stack
    Fibre *current = nullptr;
    const Launch *launch = nullptr;
    unsigned threads = 0, started = 0;
    Meeting block;
    std::vector<Meeting> warps;
    std::vector<uint64_t> brought;
    unsigned progress = 0; // threads that ended, meetings that took place

    void run_block(const Launch &next) {
        launch = &next;
        threads = launch->block.x * launch->block.y * launch->block.z;
        started = 0;
        block = {threads};
        warps.assign((threads + WARP - 1) / WARP, Meeting{WARP});
        if (threads % WARP) warps.back().alive = threads % WARP;
        brought.assign(threads, 0);
        shared.assign(launch->shared, char(0xff));
        std::vector<Fibre *> waiting;
        for (size_t next_fibre = 0; started < threads; ++next_fibre) {
            if (next_fibre == fibres.size()) fibres.push_back(std::make_unique<Fibre>());
            resume(*fibres[next_fibre]);
            if (fibres[next_fibre]->waits) waiting.push_back(fibres[next_fibre].get());
        }
        while (!waiting.empty()) {
            const unsigned before = progress;
            for (Fibre *fibre : waiting) resume(*fibre);
            std::erase_if(waiting, [](Fibre *fibre) { return !fibre->waits; });
            if (progress == before) {
                std::fprintf(stderr, "emulated GPU: threads of `%s` wait for each other at different points\n", launch->name);
                std::abort();
            }
        }
    }

    void resume(Fibre &fibre) {
        current = &fibre;
        place(fibre.thread);
        emulated_switch(&scheduler, fibre.at);
    }

    void place(unsigned thread) const {
        const dim3 &block = launch->block;
        if (block.x == threads) threadIdx = {thread, 0, 0}; // most are so, and a division is slow
        else threadIdx = {thread % block.x, thread / block.x % block.y, thread / (block.x * block.y)};
    }

    void to_scheduler(bool waits) {
        Fibre &fibre = *current;
        fibre.waits = waits;
        emulated_switch(&fibre.at, scheduler);
    }

    void meet(Meeting &meeting) {
        const unsigned round = meeting.round;
        ++meeting.arrived;
        meeting.end_if_all_arrived();
        progress += meeting.round != round;
        while (meeting.round == round) to_scheduler(true);
    }

    void end(unsigned thread) {
        for (Meeting *meeting : {&block, &warps[thread / WARP]}) {
            --meeting->alive;
            meeting->end_if_all_arrived();
        }
        ++progress;
    }
};

thread_local Runner runner FROM_THE_START;

// What every fibre does: one thread after the other, as long as there are some that nobody has begun.
void run_threads() {
    for (;;) {
        while (runner.started < runner.threads) {
            const unsigned index = runner.started++;
            const unsigned thread = runner.launch->from_last ? runner.threads - 1 - index : index;
            runner.current->thread = thread;
            runner.place(thread);
            runner.launch->call(runner.launch->arguments);
            runner.end(thread);
        }
        runner.to_scheduler(false);
    }
}

} // namespace

void meet_block() { runner.meet(runner.block); }

uint64_t swap_lanes(uint64_t value, int lanes) {
    const unsigned thread = runner.current->thread, other = thread ^ unsigned(lanes);
    Meeting &warp = runner.warps[thread / WARP];
    runner.brought[thread] = value;
    runner.meet(warp);
    const uint64_t found = other < runner.threads ? runner.brought[other] : value;
    runner.meet(warp);
    return found;
}

void *dynamic_shared() { return runner.shared.data(); }

void run(const Launch &launch) {
    const dim3 grid = launch.grid;
    const long blocks = long(grid.x) * grid.y * grid.z;
    // Small ones are done before another thread would be awake.
#pragma omp parallel for schedule(dynamic, 16) if (blocks >= 64)
    for (long index = 0; index < blocks; ++index) {
        const long block = launch.from_last ? blocks - 1 - index : index;
        gridDim = grid;
        blockDim = launch.block;
        blockIdx = {unsigned(block % grid.x), unsigned(block / grid.x % grid.y), unsigned(block / grid.x / grid.y)};
        runner.run_block(launch);
    }
}

} // namespace emulated
