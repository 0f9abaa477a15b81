//! The operator's hands: every command of the one binary. It trains, stores and fits nothing itself.

mod args;
mod corpus;
mod doctor;
mod exit;
mod export;
mod fit;
mod gpucheck;
mod gpus;
mod lab;
mod mps;
mod next;
mod orders;
mod place;
mod plan;
mod points;
mod predicted;
mod print;
mod probe;
mod remote;
mod report;
mod serve;
mod signal;
mod speed;
mod stats;
mod status;
mod store;
mod submit;
mod survey;
mod table;
mod token;
mod train;
mod trial;
mod up;
mod watch;
mod worker;
mod workers;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command, ExportFormat};
use exit::{Done, Exit};

/// Parses the command line, runs the command, reports errors on stderr.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(Exit { code, message }) = start_log(&cli.place.log) {
        print::note(&format!("isoloss: {message}"));
        return code.into();
    }
    match &cli.command {
        Command::Train { run } => return train::run(run.as_deref()),
        Command::Guard { service, command } => return worker::guard(command, *service),
        Command::GpuOpen => return mps::open(),
        Command::Trial => return trial::run(),
        _ => {}
    }
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Exit { code, message }) => {
            if !message.is_empty() {
                print::note(&format!("isoloss: {message}"));
            }
            code.into()
        }
    }
}

fn run(cli: &Cli) -> Done {
    let place = &cli.place;
    match &cli.command {
        Command::Up { file, set, port, cores, out, keep, no_probe, allow_commands, artifacts, mps, choosing } => {
            let (file, out, choose) = (file.as_deref(), out.as_deref(), choosing.wish()?);
            let wish = up::Wish {
                file,
                set,
                port: *port,
                cores: *cores,
                out,
                keep: *keep,
                probe: !no_probe,
                allow_commands: *allow_commands,
                artifacts: artifacts.as_deref(),
                mps: *mps,
                choose,
            };
            up::run(place, &wish)
        }
        Command::Plan { sweep, no_probe, mps } => plan::run(place, sweep, !no_probe, *mps),
        Command::Submit { sweep, wait, choosing } => submit::run(place, sweep, *wait, choosing),
        Command::Status { sweep } => status::run(place, sweep.as_deref()),
        Command::Watch { sweep } => watch::run(place, sweep.as_deref()),
        Command::Logs { run, follow } => status::logs(place, run, *follow),
        Command::Explain { run } => status::explain(place, run),
        Command::Cancel { target } => orders::cancel(place, target),
        Command::Pause { target } => orders::hold(place, target, "pause"),
        Command::Resume { target } => orders::hold(place, target, "resume"),
        Command::Workers => workers::run(place),
        Command::Drain { worker } => workers::order(place, worker, "drain"),
        Command::Undrain { worker } => workers::order(place, worker, "undrain"),
        Command::Retry { target, failed: true } => orders::retry_failed(place, target),
        Command::Retry { target, failed: false } => orders::retry(place, target),
        Command::Fit(args) => fit::run(place, args),
        Command::Next(args) => next::run(place, args),
        Command::Report { sweep, out } => report::run(place, sweep, out),
        Command::Export { sweep, format, run, out } => match (format, sweep, run) {
            (ExportFormat::Safetensors, _, Some(run)) => export::model(place, run, out.as_deref()),
            (ExportFormat::Safetensors, _, None) => Err(Exit::usage("a model is exported with --run RUN")),
            (_, Some(sweep), _) => export::rows(place, sweep, *format, out.as_deref()),
            (_, None, _) => Err(Exit::usage("name the sweep to export")),
        },
        Command::Corpus(command) => corpus::run(place, command),
        Command::Serve(args) => serve::run(place, args),
        Command::Worker(args) => worker::run(place, args),
        Command::Bench(args) => speed::run(place, args),
        Command::Doctor => doctor::run(place),
        Command::GpuCheck(args) => gpucheck::run(place, args),
        Command::Token(command) => token::run(place, command),
        Command::Store { action } => store::run(place, action),
        Command::Survey => survey::run(),
        Command::Train { .. } | Command::Guard { .. } | Command::GpuOpen | Command::Trial => Ok(()),
    }
}

/// Logs go to stderr, in one line each.
fn start_log(filter: &str) -> Done {
    // What is wrong with a certificate is said with what to do about it; the verifier's own line comes only when asked for.
    let verifier = if filter.contains("rustls") { "" } else { ",rustls_platform_verifier=off" };
    let filter = tracing_subscriber::EnvFilter::try_new(format!("{filter}{verifier}"))
        .map_err(|error| Exit::usage(format!("--log or ISOLOSS_LOG: {filter:?} is no filter: {error}")))?;
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(print::is_terminal() && !print::no_color())
        .try_init();
    Ok(())
}
