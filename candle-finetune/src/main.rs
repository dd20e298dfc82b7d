//! The program `finetune`. Exit codes: 0 done, 1 failed, 2 wrong arguments, 130 interrupted.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
