//! Corpora, and files of trainers, for workers that do not have them: named by digest alone. No path of a request reaches
//! the disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use isoloss_sweep::{Digest, Manifest};
use tokio::io::AsyncReadExt;
use tokio_stream::wrappers::ReceiverStream;

use crate::daemon::App;
use crate::http::refusal::{Answer, At, Refused};

/// Bytes read from disk at a time.
const CHUNK: usize = 256 << 10;

pub(crate) async fn manifest(State(app): State<Arc<App>>, At(digest): At<String>) -> Answer<Manifest> {
    find(&app, &digest).await.map(|(_, manifest)| Json(manifest))
}

pub(crate) async fn artifact(
    State(app): State<Arc<App>>,
    At((digest, wanted)): At<(String, String)>,
) -> Result<Response, Refused> {
    let (folder, manifest) = find(&app, &digest).await?;
    let not_found = || Refused::not_found("corpus file", &wanted);
    let wanted: Digest = wanted.parse().map_err(|_| not_found())?;
    let artifact = manifest.artifacts.iter().find(|artifact| artifact.digest == wanted).ok_or_else(not_found)?;
    // Its names were written here; one that leads elsewhere was not.
    if Path::new(&artifact.name).file_name().is_none_or(|name| name != artifact.name.as_str()) {
        return Err(Refused::internal(&format!("{} names a file elsewhere: {:?}", folder.display(), artifact.name)));
    }
    let file = tokio::fs::File::open(folder.join(&artifact.name)).await.map_err(|error| Refused::internal(&error))?;
    let length = [(header::CONTENT_LENGTH, artifact.bytes.to_string())];
    Ok((length, Body::from_stream(chunks(file))).into_response())
}

/// A file that travels with a trainer's command.
pub(crate) async fn trainer_file(State(app): State<Arc<App>>, At(word): At<String>) -> Result<Response, Refused> {
    let not_found = || Refused::not_found("trainer's file", &word);
    let digest: Digest = word.parse().map_err(|_| not_found())?;
    let path = app.config.trainers_dir().join(digest.to_string());
    let file = tokio::fs::File::open(path).await.map_err(|_| not_found())?;
    Ok(Body::from_stream(chunks(file)).into_response())
}

async fn find(app: &App, word: &str) -> Result<(PathBuf, Manifest), Refused> {
    let not_found = || Refused::not_found("corpus", word);
    let digest: Digest = word.parse().map_err(|_| not_found())?;
    let folder = app.config.corpora_dir().join(digest.to_string());
    let bytes = tokio::fs::read(folder.join("manifest.json")).await.map_err(|_| not_found())?;
    let manifest = serde_json::from_slice(&bytes).map_err(|error| Refused::internal(&error))?;
    Ok((folder, manifest))
}

/// A file piece by piece; two pieces ahead of the reader at most.
fn chunks(mut file: tokio::fs::File) -> ReceiverStream<std::io::Result<Vec<u8>>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(2);
    tokio::spawn(async move {
        loop {
            let mut chunk = vec![0; CHUNK];
            let read = file.read(&mut chunk).await;
            let last = matches!(read, Ok(0) | Err(_));
            let piece = read.map(|bytes| {
                chunk.truncate(bytes);
                chunk
            });
            if sender.send(piece).await.is_err() || last {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}
