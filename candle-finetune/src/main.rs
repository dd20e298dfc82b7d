//! The program `finetune`. Exit codes: 0 done, 1 failed, 2 wrong arguments, 130 interrupted.

mod cli;

fn main() -> std::process::ExitCode {
    keep_backtraces_out_of_errors();
    keep_candle_from_spinning();
    cli::main()
}

/// candle puts a backtrace into its errors' text where `RUST_BACKTRACE` asks for those of panics. `RUST_LIB_BACKTRACE` asks for it alone.
fn keep_backtraces_out_of_errors() {
    set_if_unset("RUST_LIB_BACKTRACE", "0");
}

/// candle splits elementwise operations among one thread for each core of the machine, `--threads` or not, and these wait for one another without
/// rest. On two free cores that saves a tenth of the time of a head of 3,000 classes; where one of them is ours, as in a container, it takes 20 times
/// as long.
fn keep_candle_from_spinning() {
    set_if_unset("CANDLE_NUM_THREADS", "1");
}

fn set_if_unset(variable: &str, value: &str) {
    if std::env::var_os(variable).is_none() {
        // SAFETY: called before there is another thread.
        unsafe { std::env::set_var(variable, value) };
    }
}
