//! [`open`]: the client of the data file.

use raybox_client::{Client, Error};

use crate::failure::Failure;
use crate::options::Options;
use crate::password;

/// Opens the data file and begins to connect.
pub(crate) fn open(options: &Options, password: Option<(String, String)>) -> Result<Client, Failure> {
    let data = options.data()?;
    let mut client = options.client().file(&data);
    if let Some((name, password)) = password {
        client = client.password(name, password);
    } else if let Some(file) = options.jwt_file.clone() {
        client = client.jwt(move || password::jwt(&file));
    }
    Client::open(client).map_err(|error| match error {
        Error::Io(_) | Error::Store(_) => {
            format!("cannot use {}: {error}; give another data file with --data FILE", data.display()).into()
        }
        error => error.into(),
    })
}
