//! The program `finetune`.

fn main() {}
