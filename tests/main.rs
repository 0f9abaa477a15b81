//! Integration tests: the built binary driven as a person would, and the shape of the repository itself.

mod architecture;
mod binary;
mod choosing;
mod doors;
mod estimates;
mod fitting;
mod fuzzing;
mod gpu_checks;
mod gpu_lab;
mod gpus;
mod probing;
mod reuse;
mod secrets;
mod soak;
mod store;
mod surveys;
mod survival;
mod tidy;
mod trainers;
mod workers;
mod wrong_sweeps;
