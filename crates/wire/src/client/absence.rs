//! Why nobody answered as a coordinator does: from the failed request, and where that leaves it open, from a second look at
//! the address. It does not say what to do: that depends on who asked.

use std::error::Error as Cause;
use std::io::{self, ErrorKind};
use std::time::Duration;

use reqwest::Url;
use rustls::CertificateError;

/// A second look that takes longer says nothing.
const LOOK: Duration = Duration::from_secs(5);

/// What stands between client and coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// Nobody knows a machine of this name.
    NoSuchHost,
    /// The machine is there, and nothing listens at this port.
    NobodyListens,
    /// No answer came in time, or no way leads there.
    Silent,
    /// TLS was asked for, and plain HTTP is spoken.
    PlainOnly,
    /// Plain HTTP was asked for, and TLS is spoken.
    TlsOnly,
    /// The certificate is not signed by one that is believed.
    Untrusted,
    /// The certificate is for another name.
    Misnamed,
    /// The certificate's time is over, or has not come.
    OutOfDate,
    /// What listens there broke off, or speaks no HTTP at all.
    Broken,
}

impl Absence {
    /// Of a failed request to `address`; `http` takes the second look.
    pub(super) async fn of(error: &reqwest::Error, http: &reqwest::Client, address: &Url) -> Self {
        if let Some(defect) = certificate_error(error) {
            return defect;
        }
        match io_kind(error) {
            Some(ErrorKind::ConnectionRefused) => return Self::NobodyListens,
            Some(ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::TimedOut) => {
                return Self::Silent;
            }
            _ if error.is_timeout() => return Self::Silent,
            _ => {}
        }
        if error.is_connect() && !has_host(address).await {
            return Self::NoSuchHost;
        }
        match (address.scheme(), answers_otherwise(http, address).await) {
            ("https", true) => Self::PlainOnly,
            (_, true) => Self::TlsOnly,
            (_, false) => Self::Broken,
        }
    }

    /// Whether the same request may be answered a moment later, with nothing changed by people.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::NoSuchHost | Self::NobodyListens | Self::Silent | Self::Broken)
    }

    /// What is known, where it says more than the system's own words.
    pub(super) fn words(self) -> Option<&'static str> {
        match self {
            Self::NoSuchHost => Some("no machine of this name is known here"),
            Self::PlainOnly => Some("it speaks plain HTTP there, not TLS"),
            Self::TlsOnly => Some("it speaks TLS there, not plain HTTP"),
            Self::NobodyListens | Self::Silent | Self::Untrusted | Self::Misnamed | Self::OutOfDate | Self::Broken => {
                None
            }
        }
    }
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Cause + 'static)> {
    std::iter::successors(Some(error as &(dyn Cause + 'static)), |&cause| cause.source())
}

fn io_errors(error: &reqwest::Error) -> impl Iterator<Item = &io::Error> {
    causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>())
}

fn io_kind(error: &reqwest::Error) -> Option<ErrorKind> {
    io_errors(error).last().map(io::Error::kind)
}

/// What TLS has to say. It stands inside of one or two errors of I/O, which pass over what they hold when asked for a cause.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    let inside = error.get_ref()?;
    inside.downcast_ref::<rustls::Error>().or_else(|| tls_error(inside.downcast_ref::<io::Error>()?))
}

/// What is wrong with the certificate, if that is what it ended with.
fn certificate_error(error: &reqwest::Error) -> Option<Absence> {
    io_errors(error).filter_map(tls_error).find_map(|error| match error {
        rustls::Error::InvalidCertificate(defect) => Some(match defect {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Absence::OutOfDate,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Absence::Misnamed,
            _ => Absence::Untrusted,
        }),
        _ => None,
    })
}

async fn has_host(address: &Url) -> bool {
    let host = address.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = address.port_or_known_default().unwrap_or_default();
    tokio::net::lookup_host((host, port)).await.is_ok_and(|mut found| found.next().is_some())
}

/// Whether the same port answers when it is asked in the other way, with TLS or without. No token goes along.
async fn answers_otherwise(http: &reqwest::Client, address: &Url) -> bool {
    let other = if address.scheme() == "https" { "http" } else { "https" };
    let port = address.port_or_known_default();
    let mut url = address.clone();
    if url.set_scheme(other).is_err() || url.set_port(port).is_err() {
        return false;
    }
    match http.get(url).timeout(LOOK).send().await {
        Ok(_) => true,
        Err(error) => certificate_error(&error).is_some(),
    }
}
