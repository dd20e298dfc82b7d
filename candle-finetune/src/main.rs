//! The program `finetune`. Exit codes: 0 done, 1 failed, 2 wrong arguments, 130 interrupted.

mod cli;

fn main() -> std::process::ExitCode {
    keep_backtraces_out_of_errors();
    cli::main()
}

/// candle puts a backtrace into its errors' text where `RUST_BACKTRACE` asks for those of panics. `RUST_LIB_BACKTRACE` asks for it alone.
fn keep_backtraces_out_of_errors() {
    const ERRORS: &str = "RUST_LIB_BACKTRACE";
    if std::env::var_os(ERRORS).is_none() {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var(ERRORS, "0") };
    }
}
