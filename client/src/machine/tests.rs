//! The machine with frames of a server, table by table.

mod login;
mod receiving;
mod sending;

use super::*;
use crate::frame::Message;

const BOB: Conv = Conv::User(9);
const TEAM: Conv = Conv::Group(3);
const WELCOME: &str = r#"{"device":"d","errno":200,"level":2,"limits":{"frame":2000,"inflight":20,"page":200},"msgType":40,"name":"ann","ping":30,"token":"t2","tokenExpires":9,"user":7}"#;
const SYNCED: &str = r#"{"msgType":45,"synced":true}"#;

/// A machine, the frames that it has written, and their results.
struct Stage {
    machine: Machine,
    now: Instant,
}

impl Stage {
    fn new(login: Login) -> Stage {
        let now = Instant::now();
        Stage { machine: Machine::new(login, 1, now), now }
    }

    /// A machine that may connect to so many addresses.
    fn of_addresses(count: usize) -> Stage {
        let (now, token) = (Instant::now(), Some("t1".to_owned()));
        let login = Login { device: "d".to_owned(), token, frame_max: 2000, ..Login::default() };
        Stage { machine: Machine::new(login, count, now), now }
    }

    fn connected(known: Known) -> Stage {
        let mut stage = Stage::of_addresses(1);
        stage.connect(known);
        stage
    }

    fn connect(&mut self, known: Known) {
        assert!(self.machine.wants_connection(self.now));
        self.machine.connected(known, self.now, 0.0);
    }

    fn online(known: Known) -> Stage {
        let mut stage = Stage::connected(known);
        stage.hear(&[WELCOME, SYNCED]);
        assert_eq!(stage.machine.state(), State::Online);
        stage.written();
        stage.machine.done();
        stage
    }

    fn hear(&mut self, frames: &[&str]) {
        for frame in frames {
            self.machine.received(format!("{frame}\n").as_bytes(), self.now, 0.0);
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.machine.tick(self.now, 0.0);
    }

    /// The frames written since the last call.
    fn written(&mut self) -> Vec<Value> {
        let out = std::mem::take(self.machine.out());
        let lines = out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).expect("JSON")).collect()
    }

    /// Gives the machine the messages that it wants from this outbox.
    fn send(&mut self, outbox: &[(i64, Conv, &str)]) {
        while let Some(wanted) = self.machine.wanted(self.now) {
            let rows = outbox.iter().filter(|(row, conv, _)| *conv == wanted.conv && *row > wanted.after);
            let rows =
                rows.take(wanted.count).map(|(row, _, cid)| (*row, (*cid).to_owned(), format!(r#"{{"cid":"{cid}"}}"#)));
            let rows = rows.collect();
            self.machine.send(wanted, rows);
        }
    }

    fn sent_cids(&mut self) -> Vec<String> {
        self.written().iter().filter_map(|frame| frame["cid"].as_str().map(str::to_owned)).collect()
    }

    fn wait_of(&self) -> u64 {
        match self.machine.state() {
            State::Waiting { until, .. } => (until - self.now).as_secs(),
            other => panic!("{other:?}"),
        }
    }
}

fn known(cursors: &[(Conv, u64)]) -> Known {
    let cursor = |(conv, seq): &(Conv, u64)| (*conv, Cursor { seq: *seq, tag: "0a".to_owned() });
    Known { cursors: cursors.iter().map(cursor).collect(), ..Known::default() }
}

fn push(conv: Conv, seq: u64) -> String {
    format!(
        r#"{{"conv":"{conv}","from":9,"m":{{"msgType":4,"msg":"{seq}"}},"msgType":42,"seq":{seq},"tag":"0c","time":5}}"#
    )
}

fn ack(cid: &str, seq: u64) -> String {
    format!(r#"{{"cid":"{cid}","conv":"u9","errno":200,"msgType":41,"seq":{seq},"tag":"0d","time":5}}"#)
}

fn taken(done: &Done) -> Vec<(Conv, u64)> {
    let taken = done.changes.iter().filter_map(|change| match change {
        Change::Take { conv, message: Message { seq, .. } } => Some((*conv, *seq)),
        Change::Acked { conv, seq, place: true, .. } => Some((*conv, *seq)),
        _ => None,
    });
    taken.collect()
}
