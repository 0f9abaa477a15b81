//! The one binary. All it does is hand its arguments to the `cli` crate and its exit code to the system.

fn main() -> std::process::ExitCode {
    isoloss_cli::main()
}
