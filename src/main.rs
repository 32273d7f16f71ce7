//! The program: parses the command line, runs it, prints the error, picks the exit code.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    spark3d::cli::quiet_drivers();
    match spark3d::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where stderr cannot be written to either, the exit code has to do.
            let _ = writeln!(std::io::stderr(), "spark3d: {error}");
            ExitCode::from(error.exit_code() as u8)
        }
    }
}
