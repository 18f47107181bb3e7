//! Stores that a test opens on a database without a server.

use std::env;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use raybox::config::{DatabaseTls, MysqlSettings, Secret, ServerAddress};
use raybox::store::mysql::MysqlStore;
use testkit::Database;

/// Opens a store on `database`, with settings that `change` adjusts.
pub(crate) fn open_with(database: &Database, change: impl FnOnce(&mut MysqlSettings)) -> MysqlStore {
    let mut settings = settings(database);
    change(&mut settings);
    MysqlStore::open(&settings).unwrap_or_else(|error| panic!("{error}"))
}

/// The address in the form that the store's settings take.
pub(crate) fn at(address: SocketAddr) -> ServerAddress {
    ServerAddress::new(&address.ip().to_string(), address.port())
}

/// The settings of a store on `database`. For a database on another machine, `TEST_MYSQL_TLS`
/// (`on`, `verify`) and `TEST_MYSQL_CA` set the encryption of connections.
fn settings(database: &Database) -> MysqlSettings {
    let tls = match env::var("TEST_MYSQL_TLS").as_deref() {
        Err(_) => DatabaseTls::Off,
        Ok("on") => DatabaseTls::On,
        Ok("verify") => DatabaseTls::Verify,
        Ok(other) => panic!("TEST_MYSQL_TLS must be on or verify, not {other:?}"),
    };
    let patience = Duration::from_secs(10);
    MysqlSettings {
        file: "mysql.cnf".into(),
        servers: vec![at(database.address())],
        username: database.user().to_owned(),
        password: Secret::new(database.password()),
        database: database.name().to_owned(),
        initial_size: 1,
        max_size: 32,
        idle_timeout: patience,
        wait_timeout: Duration::from_secs(2),
        connect_timeout: patience,
        read_timeout: patience,
        write_timeout: patience,
        tls,
        ca: env::var_os("TEST_MYSQL_CA").map(PathBuf::from),
    }
}
