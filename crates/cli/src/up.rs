//! `up`: the whole job on one machine. Coordinator and worker live in this process, runs in child processes; what is
//! done is in the data directory, so the same command goes on where it was stopped.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use isoloss_coordinator::PlanningError;
use isoloss_corpus::Stage;
use isoloss_report::Lab;
use isoloss_sweep::Plan;
use isoloss_sweep::plan::Probe;
use isoloss_sweep::run::EngineKind;
use isoloss_wire::Client;
use isoloss_wire::api::{FitQuery, Slot, Submit};
use isoloss_worker::Artifacts;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::args::{Format, MpsUse, Place, SweepFile};
use crate::exit::{Code, Done, Exit};
use crate::gpus::{self, Offer};
use crate::place::DataDir;
use crate::plan::{self, Estimated};
use crate::predicted::Predicted;
use crate::probe;
use crate::status::duration;
use crate::{lab, mps, next, print, report, serve, signal, submit, worker};

const QUICKSTART: &str = include_str!("../../../sweeps/quickstart.toml");

/// A plan that ends within this needs no second thread.
const SHORT_SECONDS: f64 = 10.0;

/// What the person asked for.
#[derive(Debug)]
pub(crate) struct Wish<'a> {
    pub(crate) file: Option<&'a Path>,
    pub(crate) set: &'a [String],
    pub(crate) port: u16,
    pub(crate) cores: Option<usize>,
    pub(crate) out: Option<&'a Path>,
    pub(crate) keep: bool,
    /// Whether the machine's speed is measured first.
    pub(crate) probe: bool,
    /// Leave to run the command of the sweep.
    pub(crate) allow_commands: bool,
    /// Where checkpoints also go.
    pub(crate) artifacts: Option<&'a str>,
    /// What is done about MPS.
    pub(crate) mps: MpsUse,
    /// Which runs to make, where not all.
    pub(crate) choose: Option<next::Wish>,
}

pub(crate) fn run(place: &Place, wish: &Wish<'_>) -> Done {
    if place.format() == Format::Csv {
        return Err(Exit::usage("up prints a table or JSON; `isoloss export` writes CSV"));
    }
    let submit = match wish.file {
        Some(file) => plan::read(&SweepFile { file: file.to_owned(), set: wish.set.to_vec() })?,
        None => plan::submit(QUICKSTART.to_owned(), "quickstart.toml", wish.set)?,
    };
    if !wish.allow_commands {
        refuse_commands(&submit)?;
    }
    let artifacts = wish.artifacts.map(worker::artifacts).transpose()?;
    let data = DataDir::of(place)?;
    data.leak().iter().for_each(|leak| print::note(leak));
    let cores = worker::cpu_slots(wish.cores, 1)?.len();
    let Checked { probe, threads, gpus, predicted } =
        check(&submit, &data, wish.probe.then_some(probe::Wish { slots: cores, mps: wish.mps }), cores)?;
    let mut slots = worker::cpu_slots(Some(cores), threads)?;
    slots.extend(gpus.slots);
    isoloss_train::share_one_heap();
    worker::multi_thread()?.block_on(async {
        let mut house = House::open(&data, wish, slots, gpus.names, probe, artifacts).await?;
        let client = house.client.clone();
        let done = tokio::select! {
            done = work(place, wish, &data, &client, &submit, predicted) => done,
            () = signal::wait() => Err(Exit::new(Code::Interrupted, "stopped; the same command goes on where this one stopped")),
            broken = house.broken() => Err(broken),
        };
        if done.is_err() {
            print::note("stopping: running attempts write a checkpoint");
        }
        house.close().await;
        done
    })
}

/// A sweep file looks like data and is passed around like data: what it would run is shown before it may.
fn refuse_commands(submit: &Submit) -> Done {
    let spec = isoloss_sweep::spec::parse(&submit.file, &submit.toml, &submit.set).map_err(PlanningError::from)?;
    match spec.command() {
        None => Ok(()),
        Some(command) => Err(Exit::new(
            Code::Refused,
            format!(
                "{} trains its runs by a command on this machine, as you: {}\ngive it leave with --allow-commands",
                submit.file,
                command.join(" ")
            ),
        )),
    }
}

/// What is known before anything starts.
struct Checked {
    /// The speed of as many runs side by side as there are cores, if it was to be measured.
    probe: Option<Probe>,
    /// Of each run on cores.
    threads: usize,
    /// This machine's GPUs, if the plan wants any.
    gpus: Offer,
    /// What the whole plan is expected to take.
    predicted: Predicted,
}

/// Plans once before anything starts, so that a wrong file is told at once and a long survey is seen.
fn check(submit: &Submit, data: &DataDir, wish: Option<probe::Wish>, cores: usize) -> Result<Checked, Exit> {
    let bar = if print::is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    let mut show = |stage| bar.set_message(stage_name(stage));
    let estimated = plan::estimate(submit, data, wish, &|_| false, &mut show);
    bar.finish_and_clear();
    // Without a GPU that runs want, it goes no further than below.
    let Estimated { planning, timing, .. } = estimated?;
    for warning in &planning.plan.warnings {
        print::note(&format!("warning: {warning}"));
    }
    let seconds = planning.plan.totals.seconds;
    if let (Some(seconds), Some(timing)) = (seconds, &timing) {
        let places = plan::places(&planning.plan, timing);
        print::note(&format!("the whole plan takes about {} on {places}", duration(seconds)));
    }
    let plan = &planning.plan;
    let gpus = gpus::for_plan(plan)?;
    let on_cores = plan.runs.iter().filter(|run| run.run.numerics.engine != EngineKind::Cuda);
    let needed = on_cores.map(|run| run.memory_bytes).max().unwrap_or(0);
    let offered = slots_memory(cores)?;
    if needed > offered {
        let [needed, offered] = [needed, offered].map(|bytes| isoloss_sweep::count::si(bytes as f64));
        return Err(Exit::new(
            Code::Refused,
            format!("a run needs {needed}B of memory, this machine offers {offered}B: no worker here could take it"),
        ));
    }
    let most = u32::try_from(cores).unwrap_or(u32::MAX);
    if let Some(wanted) = plan.resources.threads.filter(|wanted| *wanted > most) {
        let detail = format!("[resources] threads asks for {wanted} threads for each run, there are {cores} core(s)");
        return Err(Exit::new(Code::Refused, detail));
    }
    let threads = threads_per_run(plan, most);
    let shared = worker::cpu_slots(Some(cores), threads as usize)?;
    let fits = shared.iter().all(|slot| needed <= slot.memory_bytes);
    let threads = if fits { threads as usize } else { cores };
    if threads > 1 {
        let why = if plan.resources.threads.is_some() { "as the sweep asks" } else { "so the whole ends soonest" };
        print::note(&format!("each run gets {threads} threads: {why}"));
    }
    let predicted = Predicted::of(&plan.totals);
    Ok(Checked { probe: timing.map(|timing| timing.probe), threads, gpus, predicted })
}

/// Threads wait for each other in every step: on a machine that does something else too, a short run gains nothing. Of a
/// command nothing is known but what its sweep asks for.
fn threads_per_run(plan: &Plan, cores: u32) -> u32 {
    if let Some(wanted) = plan.resources.threads {
        return wanted;
    }
    if plan.runs.iter().any(|planned| planned.run.trainer.is_some()) {
        return 1;
    }
    let short = plan.totals.seconds.is_some_and(|seconds| seconds < SHORT_SECONDS);
    let left = plan.totals.to_run + plan.totals.to_branch > 0;
    if short || !left { 1 } else { plan.threads_per_run(cores) }
}

/// Memory that one run may take when all cores work on it.
fn slots_memory(cores: usize) -> Result<u64, Exit> {
    let slots = worker::cpu_slots(Some(cores), cores)?;
    Ok(slots.iter().map(|slot| slot.memory_bytes).max().unwrap_or(0))
}

fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Read => "corpus: reading",
        Stage::Split => "corpus: splitting",
        Stage::Tokenizer => "corpus: training the tokenizer",
        Stage::Encode => "corpus: encoding",
        Stage::Baselines => "corpus: measuring gzip and xz",
        Stage::Write => "corpus: writing",
    }
}

async fn work(
    place: &Place,
    wish: &Wish<'_>,
    data: &DataDir,
    client: &Client,
    submit: &Submit,
    predicted: Predicted,
) -> Done {
    let mut compared = Vec::new();
    let (submitted, end) = match &wish.choose {
        Some(choose) => next::live::drive(client, submit, choose, wish.keep).await?,
        None => {
            let submitted = submit::hand_in(client, submit).await?;
            print::note(&format!("watch it at {}", client.server()));
            let begun = Instant::now();
            let end = crate::watch::follow(client, &submitted.sweep_id.to_string(), wish.keep).await?;
            // What was there already takes no time, and what was predicted is the whole.
            if submitted.added == submitted.runs && !submitted.paused {
                let took = begun.elapsed().as_secs_f64();
                compared = predicted.beside(took, &client.runs(&submitted.sweep_id.to_string()).await?);
            }
            (submitted, end)
        }
    };
    let sweep = submitted.sweep_id.to_string();
    let bar = if print::is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    bar.set_style(ProgressStyle::default_spinner());
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    bar.set_message("fitting");
    let lab = lab::gather(client, &sweep, &FitQuery::default()).await?;
    bar.finish_and_clear();
    let folder = format!("{}-{}", submitted.name, submitted.sweep_id.short());
    let out = wish.out.map_or_else(|| data.reports().join(folder), PathBuf::from);
    let page = report::write(&out, &lab)?;
    show(place, &lab)?;
    print::note(&format!("report: {page}"));
    compared.iter().for_each(|compared| print::note(compared));
    if wish.keep {
        print::note(&format!("serving {} until Ctrl-C", client.server()));
        std::future::pending::<()>().await;
    }
    crate::watch::verdict(
        &end,
        "the report names them; `isoloss serve` on the same data directory, then `isoloss status`, shows them too",
    )
}

fn show(place: &Place, lab: &Lab) -> Done {
    match (place.format(), &lab.fit) {
        (Format::Json, Some(fit)) => print::json(fit),
        (Format::Json, None) => Err(Exit::failure(lab.fit_refusal.as_deref().unwrap_or("no law could be fitted"))),
        (Format::Table | Format::Csv, _) => {
            print::text_block(&isoloss_report::runs_table(lab));
            print::text_block(&format!("\n{}", isoloss_report::law_table(lab)));
            Ok(())
        }
    }
}

/// Coordinator and worker of this process.
struct House {
    client: Client,
    coordinator: Part,
    worker: Part,
}

/// A task with the way to end it.
struct Part {
    stop: watch::Sender<bool>,
    task: JoinHandle<Done>,
}

impl House {
    async fn open(
        data: &DataDir,
        wish: &Wish<'_>,
        slots: Vec<Slot>,
        gpu_names: BTreeMap<String, String>,
        probe: Option<Probe>,
        artifacts: Option<Artifacts>,
    ) -> Result<Self, Exit> {
        let listener = bind(wish.port)?;
        let address = listener.local_addr()?;
        let mut config = serve::config(data);
        let process = probe.as_ref().and_then(|probe| probe.gpus.as_ref()?.process_bytes);
        config.probe = probe;
        let token = isoloss_coordinator::token(data.root())?;
        let coordinator = Part::start(move |stopped| async move {
            isoloss_coordinator::serve(config, listener, stopped).await.map_err(Exit::failure)
        });
        let server = format!("http://{address}");
        let client = Client::new(&server, Some(token.clone()))?;
        let dir = data.root().join("worker");
        let mut config = isoloss_worker::Config::new(&server, "local", dir, slots, worker::own_program()?);
        config.gpu_names = gpu_names;
        config.token = Some(token);
        config.corpora = vec![data.corpora()];
        config.allow_commands = wish.allow_commands;
        config.artifacts = artifacts;
        mps::tell(&mut config, wish.mps)?;
        config.gpu_process_bytes = process;
        let worker =
            Part::start(
                move |stopped| async move { isoloss_worker::run(config, stopped).await.map_err(Exit::failure) },
            );
        Ok(Self { client, coordinator, worker })
    }

    /// Returns when either ends before it was asked to.
    async fn broken(&mut self) -> Exit {
        let ended = tokio::select! {
            ended = &mut self.coordinator.task => ended,
            ended = &mut self.worker.task => ended,
        };
        match ended {
            Ok(Ok(())) => Exit::failure("the coordinator or the worker ended early"),
            Ok(Err(exit)) => exit,
            Err(error) => Exit::failure(format!("the coordinator or the worker broke: {error}")),
        }
    }

    /// The worker ends first, so that what its children say last still finds the coordinator.
    async fn close(self) {
        self.worker.end().await;
        self.coordinator.end().await;
    }
}

impl Part {
    fn start<F: Future<Output = Done> + Send + 'static>(life: impl FnOnce(watch::Receiver<bool>) -> F) -> Self {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(life(stopped));
        Self { stop, task }
    }

    /// One that has ended already was seen to end by `broken`.
    async fn end(self) {
        self.stop.send_replace(true);
        if !self.task.is_finished()
            && let Ok(Err(exit)) = self.task.await
        {
            print::note(&format!("isoloss: {}", exit.message));
        }
    }
}

/// The wanted port, or any free one when it is taken.
fn bind(port: u16) -> Result<TcpListener, Exit> {
    let wanted = SocketAddr::from(([127, 0, 0, 1], port));
    match isoloss_coordinator::listen(wanted) {
        Ok(listener) => Ok(listener),
        Err(error) if port != 0 => {
            print::note(&format!("{wanted}: {error}; taking a free port"));
            Ok(isoloss_coordinator::listen(SocketAddr::from(([127, 0, 0, 1], 0)))?)
        }
        Err(error) => Err(error.into()),
    }
}
