//! Certificate and key of a coordinator, read and checked before anything else begins: what a client would refuse is no
//! certificate to start with. It opens no connection.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{self, CertificateError, RootCertStore, ServerConfig, crypto::ring};

/// Why a coordinator cannot speak TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read the {what} {path}: {reason}", path = path.display())]
    Unreadable { what: &'static str, path: PathBuf, reason: String },
    #[error("there is no {what} in {path}; expected PEM, with a line -----BEGIN {begin}-----", path = path.display())]
    Missing { what: &'static str, begin: &'static str, path: PathBuf },
    #[error(
        "the key {key} does not belong to the certificate {certificate}: name the one that it was made with",
        key = key.display(), certificate = certificate.display()
    )]
    NotAPair { certificate: PathBuf, key: PathBuf },
    #[error(
        "the certificate {path} was good until {until}: no client believes it any more; renew it",
        path = path.display()
    )]
    Expired { path: PathBuf, until: String },
    #[error(
        "the certificate {path} is not good before {from}: no client believes it yet; check the clock of this machine",
        path = path.display()
    )]
    Early { path: PathBuf, from: String },
    #[error(
        "the certificate {path} is that of an authority (CA:TRUE), and clients do not take it for a server's own: make one \
         with CA:FALSE in its basic constraints",
        path = path.display()
    )]
    Authority { path: PathBuf },
    #[error("cannot use the certificate {path}: {reason}", path = path.display())]
    Unusable { path: PathBuf, reason: rustls::Error },
}

/// Certificate and key as a listener uses them.
#[derive(Clone)]
pub struct Tls {
    pub(crate) acceptor: TlsAcceptor,
    certificate: PathBuf,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Tls {
    /// From PEM files: the certificate chain, its own certificate first, and the private key.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
        let chain = chain.map_err(|error| unreadable("certificate", certificate, error))?;
        if chain.is_empty() {
            let path = certificate.to_owned();
            return Err(TlsError::Missing { what: "certificate", begin: "CERTIFICATE", path });
        }
        let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
            pem::Error::NoItemsFound => {
                TlsError::Missing { what: "private key", begin: "PRIVATE KEY", path: key.to_owned() }
            }
            error => unreadable("private key", key, error),
        })?;
        let unusable = |reason| TlsError::Unusable { path: certificate.to_owned(), reason };
        check_as_clients_do(certificate, &chain)?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_single_cert(chain, secret)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    TlsError::NotAPair { certificate: certificate.to_owned(), key: key.to_owned() }
                }
                error => unusable(error),
            })?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), certificate: certificate.to_owned() })
    }

    /// Where the certificate was read.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }
}

fn unreadable(what: &'static str, path: &Path, error: pem::Error) -> TlsError {
    let reason = match error {
        pem::Error::Io(error) => error.to_string(),
        error => format!("{error:?}"),
    };
    TlsError::Unreadable { what, path: path.to_owned(), reason }
}

/// Looks at the chain as a client does that believes its last certificate. Who signed that, and for which name, is for
/// clients to judge: only what all of them refuse counts here.
fn check_as_clients_do(path: &Path, chain: &[CertificateDer<'static>]) -> Result<(), TlsError> {
    let unusable = |reason| TlsError::Unusable { path: path.to_owned(), reason };
    let [own, between @ ..] = chain else { return Ok(()) };
    let mut roots = RootCertStore::empty();
    roots.add(chain.last().unwrap_or(own).clone()).map_err(unusable)?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()));
    let Ok(verifier) = verifier.build() else { return Ok(()) };
    let name = ServerName::from(std::net::IpAddr::from([127, 0, 0, 1]));
    match verifier.verify_server_cert(own, between, &name, &[], UnixTime::now()) {
        Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Err(TlsError::Expired { path: path.to_owned(), until: date(not_after) })
        }
        Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
            Err(TlsError::Early { path: path.to_owned(), from: date(not_before) })
        }
        // Its type is not made known; the word is.
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(what)))
            if format!("{what:?}").contains("CaUsedAsEndEntity") =>
        {
            Err(TlsError::Authority { path: path.to_owned() })
        }
        Err(error @ rustls::Error::InvalidCertificate(CertificateError::BadEncoding)) => Err(unusable(error)),
        _ => Ok(()),
    }
}

fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).ok();
    seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()).map_or_else(String::new, |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd, generate_simple_self_signed};

    use super::*;

    #[test]
    fn what_no_client_would_believe_is_refused_with_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let write = |name: &str, text: String| std::fs::write(path(name), text).unwrap();
        let names = || vec!["localhost".to_owned()];
        let sound = generate_simple_self_signed(names()).unwrap();
        write("sound", sound.cert.pem());
        write("key", sound.signing_key.serialize_pem());
        write("other", KeyPair::generate().unwrap().serialize_pem());
        write("empty", String::new());
        write("torn", sound.cert.pem()[..60].to_owned());
        let key = KeyPair::generate().unwrap();
        write("its key", key.serialize_pem());
        for (name, begin, end) in [("old", 2001, 2002), ("new", 2101, 2102)] {
            let mut dated = CertificateParams::new(names()).unwrap();
            dated.not_before = date_time_ymd(begin, 2, 3);
            dated.not_after = date_time_ymd(end, 2, 3);
            write(name, dated.self_signed(&key).unwrap().pem());
        }
        let mut authority = CertificateParams::new(names()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        write("authority", authority.self_signed(&key).unwrap().pem());
        let load = |certificate: &str, key: &str| Tls::load(&path(certificate), &path(key));
        assert_eq!(load("sound", "key").unwrap().certificate(), path("sound"));
        let wrong = [
            ("none", "key", "cannot read the certificate"),
            ("sound", "none", "cannot read the private key"),
            ("empty", "key", "no certificate in"),
            ("key", "key", "no certificate in"),
            ("torn", "key", "cannot read the certificate"),
            ("sound", "empty", "no private key in"),
            ("sound", "sound", "no private key in"),
            ("sound", "other", "does not belong to"),
            ("authority", "its key", "CA:TRUE"),
            ("old", "its key", "was good until 2002-02-03"),
            ("new", "its key", "not good before 2101-02-03"),
        ];
        for (certificate, key, reason) in wrong {
            let said = load(certificate, key).unwrap_err().to_string();
            assert!(said.contains(reason) && said.contains(dir.path().to_str().unwrap()), "{said}, not {reason}");
        }
    }
}
