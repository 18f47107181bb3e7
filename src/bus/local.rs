//! The bus of a node that is alone.

use super::Bus;

/// No other node is there, so nobody takes anything.
#[derive(Debug)]
pub struct LocalBus;

impl Bus for LocalBus {
    fn describe(&self) -> String {
        "in-process".into()
    }
}
