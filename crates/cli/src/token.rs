//! `token`: access tokens of the coordinator whose data directory this is. Whoever may write there needs no coordinator
//! for it.

use isoloss_coordinator::tokens::{self, Role, TokenError, TokenRow};
use serde::Serialize;

use crate::args::{Format, Place, RoleName, TokenCommand};
use crate::exit::{Code, Done, Exit};
use crate::place::DataDir;
use crate::print;
use crate::table::Table;

const SCHEMA_VERSION: u32 = 1;

/// What is shown of a token: never its digest.
#[derive(Debug, Serialize)]
struct Row {
    id: String,
    name: String,
    role: Role,
    created_at: String,
}

#[derive(Debug, Serialize)]
struct Rows {
    schema_version: u32,
    tokens: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Created {
    schema_version: u32,
    id: String,
    role: Role,
    token: String,
}

pub(crate) fn run(place: &Place, command: &TokenCommand) -> Done {
    let data = DataDir::of(place)?;
    match command {
        TokenCommand::Create { role, name } => {
            let (row, token) = tokens::create(data.root(), role_of(*role), name)?;
            print::note(&format!(
                "token {} ({}, {}); keep it in a file with mode 0600 and name that with --token-file or ISOLOSS_TOKEN_FILE",
                row.id,
                row.name,
                row.role.name()
            ));
            if place.format() == Format::Json {
                return print::json(&Created { schema_version: SCHEMA_VERSION, id: row.id, role: row.role, token });
            }
            print::line(&token);
            Ok(())
        }
        TokenCommand::List => {
            let rows: Vec<Row> = tokens::list(data.root())?.into_iter().map(row_of).collect();
            if place.format() == Format::Json {
                return print::json(&Rows { schema_version: SCHEMA_VERSION, tokens: rows });
            }
            let mut table = Table::new(&["id", "name", "role", "created"]);
            for row in rows {
                table.row(vec![row.id, row.name, row.role.name().to_owned(), row.created_at]);
            }
            print::text_block(&table.render());
            Ok(())
        }
        TokenCommand::Revoke { token } => {
            let row = tokens::revoke(data.root(), token)?;
            print::note(&format!("token {} ({}, {}) is revoked", row.id, row.name, row.role.name()));
            Ok(())
        }
    }
}

fn role_of(name: RoleName) -> Role {
    match name {
        RoleName::Viewer => Role::Viewer,
        RoleName::Submitter => Role::Submitter,
        RoleName::Worker => Role::Worker,
        RoleName::Admin => Role::Admin,
    }
}

fn row_of(row: TokenRow) -> Row {
    Row { id: row.id, name: row.name, role: row.role, created_at: row.created_at.to_string() }
}

impl From<TokenError> for Exit {
    fn from(error: TokenError) -> Self {
        match &error {
            TokenError::Unknown(_) => Self::new(Code::NotFound, error),
            TokenError::Name(_) | TokenError::Taken(_) | TokenError::Ambiguous { .. } => Self::usage(error),
            TokenError::Io { .. } | TokenError::Garbled { .. } | TokenError::Many => Self::failure(error),
        }
    }
}
