//! The way to a coordinator: address, token, and what its refusals mean as exit codes.

use std::fs;
use std::future::Future;
use std::io;

use isoloss_wire::api::Code as Problem;
use isoloss_wire::{Absence, Client, ClientError};

use crate::args::Place;
use crate::exit::{Code, Exit};
use crate::place::DataDir;

/// A client for the coordinator that the flags and the environment name. The token file is found by itself on the
/// machine that the coordinator runs on.
pub(crate) fn connect(place: &Place) -> Result<Client, Exit> {
    Ok(Client::trusting(place.server(), token(place)?, place.ca_file.as_deref())?)
}

/// The access token: from the named file, or from the one that a coordinator left in the data directory.
pub(crate) fn token(place: &Place) -> Result<Option<String>, Exit> {
    let (path, asked) = match &place.token_file {
        Some(path) => (path.clone(), true),
        None => (DataDir::of(place)?.token(), false),
    };
    let wrong = |what: &dyn std::fmt::Display| Exit::usage(format!("the token file {}: {what}", path.display()));
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if !asked && error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(&format!("cannot read it: {error}"))),
    };
    match text.trim() {
        "" if !asked => Ok(None),
        token if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Some(token.to_owned())),
        _ => Err(wrong(&"expected one token, as `isoloss token create` prints it, and nothing else")),
    }
}

/// Runs one command's conversation to its end.
pub(crate) fn block_on<T>(talk: impl Future<Output = Result<T, Exit>>) -> Result<T, Exit> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(talk)
}

/// What to do about a coordinator that does not answer.
pub(crate) fn hint(absence: Absence) -> &'static str {
    match absence {
        Absence::NoSuchHost => {
            "look at the host in --server or ISOLOSS_SERVER; it may also be that no name server answers"
        }
        Absence::NobodyListens => {
            "nothing listens there: start a coordinator with `isoloss serve`, name the right port with --server, or run a \
             sweep on this machine alone with `isoloss up`"
        }
        Absence::Silent => {
            "look at the address in --server, and whether that machine is up and a firewall lets the port through"
        }
        Absence::PlainOnly => {
            "write http:// in --server, or start the coordinator with --tls-cert and --tls-key where others can listen in"
        }
        Absence::TlsOnly => {
            "write https:// in --server, with --ca-file FILE where the system does not know who signed its certificate"
        }
        Absence::Untrusted => {
            "name the certificate that signed it, or the coordinator's own, with --ca-file FILE or ISOLOSS_CA_FILE"
        }
        Absence::Misnamed => {
            "call the coordinator in --server by a name of its certificate, or have one made that holds this name"
        }
        Absence::OutOfDate => "renew the coordinator's certificate and start it again; check the clock of this machine",
        Absence::Broken => {
            "it broke off, or something listens there that answers in no way a coordinator does: try again, for a \
             coordinator without a place for one more connection breaks off too; then look at the port in --server, and at \
             what the coordinator says"
        }
    }
}

impl From<ClientError> for Exit {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Unreachable { absence, .. } => {
                // What waiting cannot mend is a mistake in how it was called, or in how the coordinator was started.
                let code = if absence.may_pass() { Code::Unreachable } else { Code::Usage };
                Self::new(code, format!("{error}\n{}", hint(*absence)))
            }
            ClientError::Address { .. } => Self::usage(format!("{error}\nit comes from --server or ISOLOSS_SERVER")),
            ClientError::Unready { .. } => Self::usage(format!(
                "{error}\nwhere the system has no certificates of its own, name those to believe with --ca-file FILE"
            )),
            ClientError::NotFound(_) => Self::new(Code::NotFound, error),
            ClientError::Refused(problem) => match problem.code {
                Problem::InvalidSweep | Problem::BadRequest => Self::new(Code::Usage, error),
                Problem::RefusedPlan => Self::new(Code::Refused, error),
                Problem::NotFound => Self::new(Code::NotFound, error),
                _ => Self::failure(error),
            },
            ClientError::Certificates { .. } => Self::usage(format!("{error}; name others with --ca-file")),
            ClientError::Garbled { .. } => {
                Self::failure(format!("{error}\nanother program may listen there, or an isoloss of another version"))
            }
        }
    }
}
