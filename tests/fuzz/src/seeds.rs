//! Writes valid inputs for every target to `DIR/<target>/`, for libFuzzer to start from.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let dir = PathBuf::from(std::env::args_os().nth(1).expect("usage: seeds DIR"));
    for target in agent_trace_fuzz::TARGETS {
        let corpus = dir.join(target.name);
        std::fs::create_dir_all(&corpus)?;
        for seed in 0..32 {
            std::fs::write(corpus.join(format!("seed-{seed:02}")), (target.seed)(seed))?;
        }
    }
    Ok(())
}
