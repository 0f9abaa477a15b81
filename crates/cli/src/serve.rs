//! `serve`: the coordinator daemon on this machine.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use isoloss_coordinator::{Config, Tls};
use isoloss_sweep::spec::parse_bytes;
use isoloss_wire::{Client, ClientError};
use serde::Deserialize;
use tokio::sync::watch;

use crate::args::{Place, ServeArgs};
use crate::exit::{Done, Exit};
use crate::place::DataDir;
use crate::plan::capabilities;
use crate::{print, signal, survey, worker};

const LISTEN: &str = "127.0.0.1:8470";

/// `coordinator.toml`. Flags win over it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<String>,
    insecure_listen: Option<bool>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    #[serde(default)]
    corpus_roots: Vec<PathBuf>,
    /// Further names by which clients may call the coordinator.
    #[serde(default)]
    hosts: Vec<String>,
    lease_seconds: Option<f64>,
    /// A live run that made no step for this long loses its attempt; without it it is only told of.
    stall_end_seconds: Option<f64>,
    /// Room that is kept free on the disk of the data directory, such as "1GiB".
    disk_floor: Option<String>,
    /// Memory that the survey of a corpus may take, such as "8GiB".
    survey_memory: Option<String>,
}

/// A coordinator on the data directory with the engines of this build.
pub(crate) fn config(data: &DataDir) -> Config {
    let mut config = Config::new(data.root().to_owned());
    config.capabilities = capabilities();
    config.survey_memory_bytes = survey::memory_bytes();
    // Where its own file cannot be found it surveys in its own memory.
    config.surveyor = worker::own_program().ok().map(|program| vec![program.into(), "survey".into()]);
    config
}

pub(crate) fn run(place: &Place, args: &ServeArgs) -> Done {
    let data = DataDir::of(place)?;
    data.leak().iter().for_each(|leak| print::note(leak));
    let file = match &args.config {
        Some(path) => {
            let text =
                fs::read_to_string(path).map_err(|e| Exit::usage(format!("cannot read {}: {e}", path.display())))?;
            toml::from_str(&text).map_err(|e| Exit::usage(format!("{}: {e}", path.display())))?
        }
        None => File::default(),
    };
    let mut config = config(&data);
    config.insecure_listen = args.insecure_listen || file.insecure_listen.unwrap_or(false);
    config.hosts = file.hosts;
    config.tls = tls(args, file.tls_cert, file.tls_key)?;
    config.corpus_roots = roots(if args.corpus_root.is_empty() { &file.corpus_roots } else { &args.corpus_root })?;
    if let Some(lease) = duration("lease_seconds", file.lease_seconds)? {
        config.lease = lease;
    }
    config.stall_end = duration("stall_end_seconds", file.stall_end_seconds)?;
    if let Some(asked) = args.survey_memory.as_ref().or(file.survey_memory.as_ref()) {
        config.survey_memory_bytes = size("survey_memory", asked)?;
    }
    let floor = args.disk_floor.as_ref().or(file.disk_floor.as_ref());
    config.disk_floor_bytes = floor.map(|asked| size("disk_floor", asked)).transpose()?;
    config.crash = args.crash_at.as_deref().map(str::parse).transpose().map_err(Exit::usage)?;
    let listen = args.listen.clone().or(file.listen).unwrap_or_else(|| LISTEN.to_owned());
    let address: SocketAddr =
        listen.parse().map_err(|_| Exit::usage(format!("--listen: expected ADDRESS:PORT, got {listen:?}")))?;
    isoloss_train::share_one_heap();
    worker::multi_thread()?.block_on(async {
        let listener = isoloss_coordinator::listen(address)
            .map_err(|e| Exit::failure(format!("cannot listen on {address}: {e}; choose another with --listen")))?;
        let address = listener.local_addr()?;
        let telling = tell_when_open(address, config.tls.clone(), data.clone());
        tokio::spawn(telling);
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(async move {
            signal::wait().await;
            stop.send_replace(true);
        });
        isoloss_coordinator::serve(config, listener, stopped).await.map_err(Exit::failure)
    })
}

/// Certificate and key: both or none, and checked.
fn tls(args: &ServeArgs, certificate: Option<PathBuf>, key: Option<PathBuf>) -> Result<Option<Tls>, Exit> {
    match (args.tls_cert.clone().or(certificate), args.tls_key.clone().or(key)) {
        (Some(certificate), Some(key)) => Tls::load(&certificate, &key).map(Some).map_err(Exit::usage),
        (None, None) => Ok(None),
        _ => Err(Exit::usage("tls_cert and tls_key go together")),
    }
}

fn roots(asked: &[PathBuf]) -> Result<Vec<PathBuf>, Exit> {
    let root = |path: &PathBuf| {
        let wrong = |what: &dyn std::fmt::Display| Exit::usage(format!("--corpus-root {}: {what}", path.display()));
        let root = path.canonicalize().map_err(|error| wrong(&error))?;
        if root.is_dir() { Ok(root) } else { Err(wrong(&"expected a folder")) }
    };
    asked.iter().map(root).collect()
}

fn duration(key: &str, seconds: Option<f64>) -> Result<Option<Duration>, Exit> {
    let wrong = |seconds, error| Exit::usage(format!("{key} = {seconds}: {error}"));
    let duration = |seconds| Duration::try_from_secs_f64(seconds).map_err(|error| wrong(seconds, error));
    seconds.map(duration).transpose()
}

fn size(key: &str, text: &str) -> Result<u64, Exit> {
    parse_bytes(text)
        .ok_or_else(|| Exit::usage(format!("{key}: expected an amount of bytes such as 8GiB, got {text:?}")))
}

/// Says where the coordinator is, once it answers: a refused address or a store that does not open comes first.
async fn tell_when_open(address: SocketAddr, tls: Option<Tls>, data: DataDir) {
    // Whoever listens on every address listens on loopback too.
    let near = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let server = format!("{scheme}://{}", SocketAddr::new(near, address.port()));
    if let Ok(client) = Client::trusting(&server, None, tls.as_ref().map(Tls::certificate)) {
        let client = client.with_tries(1);
        // A certificate need not name this address; whoever shows one has answered all the same.
        while let Err(ClientError::Unreachable { absence, .. }) = client.ready().await
            && absence.may_pass()
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    print::note(&format!("coordinator at {scheme}://{address}, data in {}", data.root().display()));
}
