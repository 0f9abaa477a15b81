//! Writes the report of a planted sweep, to look at the figures without training anything:
//! `cargo run -p isoloss-report --example planted -- DIR [tuned]`.

#[path = "../tests/planted/mod.rs"]
mod planted;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).ok_or("expected a folder to write to")?;
    let tuned = std::env::args().nth(2).is_some_and(|word| word == "tuned");
    let lab = if tuned { planted::tuned() } else { planted::lab() };
    print!("{}\n{}", isoloss_report::law_table(&lab), isoloss_report::runs_table(&lab));
    let written = isoloss_report::write(dir.as_ref(), &lab)?;
    println!("{}", written.index.display());
    Ok(())
}
