//! A survey in a process of its own: what it takes of memory is that process's, and it ends when nobody waits for it any
//! more.

use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};

use isoloss_corpus::Stage;
use isoloss_sweep::Manifest;
use isoloss_sweep::count::si;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};

use super::blame::Blame;
use super::errand::{Errand, Said, Trouble};

/// What is kept of a child's last words.
const LAST_WORDS_BYTES: usize = 4 << 10;

/// Surveys by the command `words`, or here where there is none. Dropping the future ends the child.
pub(crate) async fn survey_apart(
    words: Option<&[OsString]>,
    errand: &Errand,
    mut progress: impl FnMut(Stage) + Send + 'static,
) -> Result<Manifest, Trouble> {
    let own = errand.clone();
    let Some((program, arguments)) = words.and_then(<[OsString]>::split_first) else {
        return aside(move || own.run(&mut progress)).await?;
    };
    if let Some(known) = aside(move || own.recall()).await?? {
        return Ok(known);
    }
    let mut command = Command::new(program);
    // A group of its own: Ctrl-C in a terminal is for the coordinator, which ends the child itself.
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child =
        command.kill_on_drop(true).spawn().map_err(|error| broke(&format!("it does not start: {error}")))?;
    let stderr = child.stderr.take().map(|stderr| tokio::spawn(last_words(stderr)));
    match converse(&mut child, errand, &mut progress).await {
        Ok(Some(made)) => made,
        Ok(None) => {
            let status = child.wait().await.map_err(|error| broke(&error.to_string()))?;
            let said = match stderr {
                Some(stderr) => stderr.await.unwrap_or_default(),
                None => String::new(),
            };
            Err(fallen(status, &said, errand))
        }
        Err(error) => Err(broke(&error.to_string())),
    }
}

/// Its answer; none where it ended without one. Its input stays open as long as somebody listens: the end of it tells the
/// child to end, also when this process is killed.
async fn converse(
    child: &mut Child,
    errand: &Errand,
    progress: &mut impl FnMut(Stage),
) -> std::io::Result<Option<Result<Manifest, Trouble>>> {
    let (Some(stdin), Some(stdout)) = (&mut child.stdin, child.stdout.take()) else {
        return Ok(None);
    };
    let mut order = serde_json::to_vec(errand)?;
    order.push(b'\n');
    // A child that is gone already says why on the other side.
    let _ = stdin.write_all(&order).await;
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await? {
        match serde_json::from_str(&line)? {
            Said::At(stage) => progress(stage),
            Said::Made(manifest) => return Ok(Some(Ok(*manifest))),
            Said::Failed(trouble) => return Ok(Some(Err(trouble))),
        }
    }
    Ok(None)
}

async fn last_words(mut stderr: ChildStderr) -> String {
    let mut kept = Vec::new();
    let mut piece = [0; 1024];
    while let Ok(read @ 1..) = stderr.read(&mut piece).await {
        kept.extend_from_slice(&piece[..read]);
        kept.drain(..kept.len().saturating_sub(LAST_WORDS_BYTES));
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// Why a child ended without an answer.
fn fallen(status: ExitStatus, said: &str, errand: &Errand) -> Trouble {
    // What Rust's allocator says before it aborts.
    if said.contains("memory allocation of") {
        let limit = si(errand.memory_bytes as f64);
        let message = format!("the survey needs more than the {limit}B of memory that may be used for it");
        return Trouble { message, blame: Some(Blame::size()) };
    }
    // A Rust panic ends with a note on how to see more of it.
    let last = said.lines().rfind(|line| !line.starts_with("note:")).unwrap_or("it said nothing");
    broke(&format!("it ended with {status}: {last}"))
}

fn broke(what: &str) -> Trouble {
    Trouble { message: format!("the process that surveys it failed: {what}"), blame: None }
}

async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Trouble> {
    tokio::task::spawn_blocking(work).await.map_err(|error| broke(&error.to_string()))
}
