//! The way to a coordinator: address, token, and what its refusals mean as exit codes.

use std::fs;
use std::future::Future;

use isoloss_wire::api::Code as Problem;
use isoloss_wire::{Client, ClientError};

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
    let text = match &place.token_file {
        Some(path) => {
            let text = fs::read_to_string(path);
            Some(text.map_err(|e| Exit::usage(format!("cannot read the token file {}: {e}", path.display())))?)
        }
        None => fs::read_to_string(DataDir::of(place)?.token()).ok(),
    };
    Ok(text.map(|text| text.trim().to_owned()))
}

/// Runs one command's conversation to its end.
pub(crate) fn block_on<T>(talk: impl Future<Output = Result<T, Exit>>) -> Result<T, Exit> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(talk)
}

impl From<ClientError> for Exit {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Unreachable { .. } => Self::new(
                Code::Unreachable,
                format!("{error}\nstart one with `isoloss serve`, or run a sweep on this machine with `isoloss up`"),
            ),
            ClientError::NotFound(_) => Self::new(Code::NotFound, error),
            ClientError::Refused(problem) => match problem.code {
                Problem::InvalidSweep | Problem::BadRequest => Self::new(Code::Usage, error),
                Problem::RefusedPlan => Self::new(Code::Refused, error),
                Problem::NotFound => Self::new(Code::NotFound, error),
                _ => Self::failure(error),
            },
            ClientError::Certificates { .. } => Self::usage(format!("{error}; name others with --ca-file")),
            ClientError::Garbled { .. } => Self::failure(error),
        }
    }
}
