//! From a URL and environment variables to a store.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, RetryConfig};
use tokio::sync::Mutex;
use url::Url;

use super::{Artifacts, ArtifactsError};

/// A server that fails is asked again for this long; then it is a failure of storage, and the attempt gives its slot back.
const RETRY: Duration = Duration::from_secs(30);

impl Artifacts {
    /// Opens a folder, `file:///folder` or `s3://bucket/prefix`; nothing is read or written yet. Of `variables` S3 takes
    /// those that begin with `AWS_`, under the names that the AWS tools use.
    pub fn open(place: &str, variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, ArtifactsError> {
        let not = || ArtifactsError::NotAPlace { url: place.to_owned() };
        if !place.contains("://") {
            return if place.is_empty() { Err(not()) } else { folder(Path::new(place)) };
        }
        let url = Url::parse(place).map_err(|_| not())?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(ArtifactsError::Credentials);
        }
        match url.scheme() {
            "file" => folder(&url.to_file_path().map_err(|()| not())?),
            "s3" if url.host_str().is_some() && url.query().is_none() && url.fragment().is_none() => {
                bucket(&url, variables)
            }
            _ => Err(not()),
        }
    }
}

fn folder(folder: &Path) -> Result<Artifacts, ArtifactsError> {
    let not = |source| ArtifactsError::Folder { folder: folder.display().to_string(), source };
    // A folder that is not there is not made: it may be a share that nobody mounted.
    let root: PathBuf = folder.canonicalize().map_err(not)?;
    let url = Url::from_file_path(&root).map_err(|()| not(std::io::Error::other("it has no URL")))?;
    let opened = LocalFileSystem::new_with_prefix(&root);
    let store = opened.map_err(|source| ArtifactsError::Open { url: url.to_string(), source })?;
    let store = store.with_automatic_cleanup(true).with_fsync(true);
    Ok(of(Arc::new(store), url.to_string(), Vec::new()))
}

fn bucket(url: &Url, variables: impl IntoIterator<Item = (String, String)>) -> Result<Artifacts, ArtifactsError> {
    let not = |source| ArtifactsError::Open { url: url.to_string(), source };
    let prefix = object_store::path::Path::from_url_path(url.path());
    let prefix = prefix.map_err(|error| not(object_store::Error::InvalidPath { source: error }))?;
    let bucket = url.host_str().unwrap_or_default();
    let retry = RetryConfig { retry_timeout: RETRY, ..RetryConfig::default() };
    let mut builder = AmazonS3Builder::new().with_bucket_name(bucket).with_retry(retry);
    let (mut endpoint, mut names) = (None, Vec::new());
    for (name, value) in variables.into_iter().filter(|(name, _)| name.starts_with("AWS_")) {
        let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() else { continue };
        if matches!(key, AmazonS3ConfigKey::Endpoint | AmazonS3ConfigKey::S3Endpoint) {
            endpoint = Some(value.clone());
        }
        builder = builder.with_config(key, value);
        names.push(name);
    }
    // Who names a server without TLS means it.
    if endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://")) {
        builder = builder.with_allow_http(true);
    }
    let mut label = format!("s3://{bucket}/{prefix}").trim_end_matches('/').to_owned();
    // Two servers may have buckets of one name.
    if let Some(server) = endpoint.and_then(|endpoint| Url::parse(&endpoint).ok()) {
        label.push_str(" at ");
        label.push_str(&server.origin().ascii_serialization());
    }
    isoloss_wire::install_tls();
    let store = PrefixStore::new(builder.build().map_err(not)?, prefix);
    Ok(of(Arc::new(store), label, names))
}

fn of(store: Arc<dyn ObjectStore>, label: String, variables: Vec<String>) -> Artifacts {
    Artifacts { store, label, variables, fetching: Arc::new(Mutex::new(())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(place: &str, variables: &[(&str, &str)]) -> Result<Artifacts, ArtifactsError> {
        Artifacts::open(place, variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn one_place_has_one_label_however_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (plain, label) = (root.to_str().unwrap(), format!("file://{}", root.display()));
        for place in
            [plain.to_owned(), format!("{plain}/"), format!("{plain}/../{}", root.file_name().unwrap().display())]
        {
            assert_eq!(open(&place, &[]).unwrap().label(), label);
            assert_eq!(open(&format!("file://{place}"), &[]).unwrap().label(), label);
        }
        let variables = [
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:9000"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "hush"),
            ("HOME", "/"),
        ];
        let artifacts = open("s3://bucket/a/b/", &variables).unwrap();
        assert_eq!(artifacts.label(), "s3://bucket/a/b at http://127.0.0.1:9000");
        assert_eq!(artifacts.variables(), ["AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]);
        assert!(!format!("{artifacts:?}").contains("hush"));
        assert_eq!(open("s3://bucket", &[]).unwrap().label(), "s3://bucket");
    }

    #[test]
    fn what_is_no_place_says_why() {
        for (place, why) in [
            ("", "expected a folder"),
            ("gs://bucket", "expected a folder"),
            ("s3://", "expected a folder"),
            ("s3://bucket?key=secret", "expected a folder"),
            ("s3://key:secret@bucket/x", "AWS_SECRET_ACCESS_KEY"),
            ("/no such folder", "make or mount it first"),
        ] {
            let error = open(place, &[]).unwrap_err().to_string();
            assert!(error.contains(why), "{place}: {error}");
        }
    }
}
