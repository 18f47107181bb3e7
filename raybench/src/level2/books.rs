//! Books of the messages sent at level 2 and of their fates, without I/O. Every message must be
//! acknowledged once, with one number that is the same for every user. It must be shown once to
//! every connection of its conversation, without a gap in the numbers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::frames::{Cid, Heard, NumberedMessage, SALT_MAX, SendTemplate, hear};

/// One sender's messages in one conversation.
#[derive(Debug)]
struct Line {
    template: SendTemplate,
    seat: usize,
    room: usize,
    next: u64,
    /// Messages that are not acknowledged, or that a connection lacks. The first has number
    /// `oldest`.
    open: VecDeque<Open>,
    oldest: u64,
    unacknowledged: usize,
    /// The number of messages that are not acknowledged, or that a connection lacks.
    unfinished: usize,
    /// After a failed send: when the sends are retried.
    pause: Option<Instant>,
    /// When the messages that wait for the end of the pause were due.
    held: VecDeque<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    ms: u64,
    due: Instant,
    /// The number of sends of this message that are not answered.
    awaited: u32,
    is_acknowledged: bool,
    /// The number of connections that lack it.
    left: usize,
}

/// A conversation.
#[derive(Debug)]
struct BookedRoom {
    /// The connections in it, and the last number that each was shown.
    seats: Vec<(usize, u64)>,
    /// The messages with the numbers from `first` on that a connection has not been shown.
    known: VecDeque<KnownMessage>,
    first: u64,
}

#[derive(Clone, Copy, Debug)]
struct KnownMessage {
    /// The message with this number; `None` as long as only later ones are known.
    whose: Option<(u32, u64, NumberedMessage)>,
    left: usize,
}

/// A conversation to set up.
#[derive(Debug)]
pub(crate) struct Conversation {
    /// The connections; those of the senders come first.
    pub(crate) seats: Vec<usize>,
    /// One for each sender.
    pub(crate) templates: Vec<SendTemplate>,
    /// The last number before the run.
    pub(crate) head: u64,
}

/// The meaning of a frame.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Verdict {
    /// A message was acknowledged; it was due at this time.
    Acknowledged {
        line: usize,
        due: Instant,
    },
    /// A message has arrived; it was due at this time.
    Delivered {
        line: usize,
        due: Instant,
    },
    /// A send failed and is retried later.
    Postponed,
    Ping,
    /// The message came before, or was acknowledged before.
    Twice,
    /// A number before this one is missing.
    Hole,
    /// A frame that must not come.
    Foreign,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Books {
    lines: Vec<Line>,
    rooms: Vec<BookedRoom>,
    salt: u16,
    /// The lines in a pause.
    paused: Vec<usize>,
    /// The number of retries of failed sends.
    pub(crate) resent: u64,
}

impl Books {
    pub(crate) fn new(salt: u16) -> Books {
        Books { salt: salt & SALT_MAX, ..Books::default() }
    }

    /// Adds a conversation, and returns the indices of its senders' lines.
    pub(crate) fn add(&mut self, conversation: Conversation) -> std::ops::Range<usize> {
        let Conversation { seats, templates, head } = conversation;
        let first = self.lines.len();
        for (template, seat) in templates.into_iter().zip(&seats) {
            self.lines.push(Line {
                template,
                seat: *seat,
                room: self.rooms.len(),
                next: 0,
                open: VecDeque::new(),
                oldest: 0,
                unacknowledged: 0,
                unfinished: 0,
                pause: None,
                held: VecDeque::new(),
            });
        }
        let seats = seats.into_iter().map(|seat| (seat, head)).collect();
        self.rooms.push(BookedRoom { seats, known: VecDeque::new(), first: head + 1 });
        first..self.lines.len()
    }

    pub(crate) fn sent(&self) -> u64 {
        self.lines.iter().map(|line| line.next).sum()
    }

    /// The number of messages of a line that are not acknowledged.
    pub(crate) fn unacknowledged(&self, line: usize) -> usize {
        self.lines[line].unacknowledged + self.lines[line].held.len()
    }

    /// The number of messages of a line that are not acknowledged, or that a connection lacks.
    pub(crate) fn on_their_way(&self, line: usize) -> usize {
        self.lines[line].unfinished + self.lines[line].held.len()
    }

    /// The number of deliveries and acknowledgements that have not come.
    pub(crate) fn missing(&self) -> u64 {
        let of_line = |line: &Line| {
            let open = line.open.iter().map(|open| open.left + usize::from(!open.is_acknowledged)).sum::<usize>();
            open + line.held.len()
        };
        self.lines.iter().map(|line| of_line(line) as u64).sum()
    }

    /// Writes the next message of a line, unless it must wait for the retry of failed ones.
    pub(crate) fn send(&mut self, line: usize, due: Instant, ms: u64, out: &mut Vec<u8>) {
        let salt = self.salt;
        let receivers = self.rooms[self.lines[line].room].seats.len() - 1;
        let of_line = &mut self.lines[line];
        if of_line.pause.is_some() {
            return of_line.held.push_back(due);
        }
        let cid = Cid { ms, salt, line: line as u32, number: of_line.next };
        of_line.template.write(cid, out);
        of_line.next += 1;
        of_line.unacknowledged += 1;
        of_line.unfinished += 1;
        of_line.open.push_back(Open { ms, due, awaited: 1, is_acknowledged: false, left: receivers });
    }

    /// The lines whose pause is over, with the connection of each. A line is only taken when all
    /// its sends are answered, so that no answer to a first send is taken for the answer to a
    /// retry.
    pub(crate) fn take_rested(&mut self, now: Instant) -> Vec<(usize, usize)> {
        let lines = &self.lines;
        let is_over = |line: &usize| {
            let line = &lines[*line];
            line.pause.is_some_and(|until| until <= now) && line.open.iter().all(|open| open.awaited == 0)
        };
        let (rested, paused) = std::mem::take(&mut self.paused).into_iter().partition(is_over);
        self.paused = paused;
        let rested: Vec<usize> = rested;
        rested.into_iter().map(|line| (line, self.lines[line].seat)).collect()
    }

    /// Writes the failed messages again, and then those that have waited for them.
    pub(crate) fn resend(&mut self, line: usize, ms: u64, out: &mut Vec<u8>) {
        let salt = self.salt;
        let of_line = &mut self.lines[line];
        of_line.pause = None;
        for (number, open) in (of_line.oldest..).zip(&mut of_line.open) {
            if !open.is_acknowledged {
                of_line.template.write(Cid { ms: open.ms, salt, line: line as u32, number }, out);
                open.awaited += 1;
                self.resent += 1;
            }
        }
        for due in std::mem::take(&mut of_line.held) {
            self.send(line, due, ms, out);
        }
    }

    /// Judges a frame that has come on this connection, which is `member` of each of its
    /// conversations.
    pub(crate) fn on_frame(&mut self, seat: usize, member: usize, frame: &[u8], now: Instant) -> Verdict {
        match hear(frame) {
            None => Verdict::Foreign,
            Some(Heard::Ping) => Verdict::Ping,
            Some(Heard::Committed { cid, conv, again, place }) => {
                self.on_committed(seat, member, cid, conv, again, place).unwrap_or(Verdict::Foreign)
            }
            Some(Heard::Refused { cid, retry_after }) => {
                self.on_refused(seat, cid, now + Duration::from_secs_f64(retry_after)).unwrap_or(Verdict::Foreign)
            }
            Some(Heard::Pushed(cid)) => self.on_pushed(seat, member, cid, frame).unwrap_or(Verdict::Foreign),
        }
    }

    /// The line of a message that was sent, and the message's number in it.
    fn line_of(&self, cid: Cid) -> Option<(usize, u64)> {
        let (index, line) = (cid.line as usize, self.lines.get(cid.line as usize)?);
        (cid.salt == self.salt && cid.number < line.next).then_some((index, cid.number))
    }

    /// Notes the answer to a send of this connection.
    fn on_answer(&mut self, seat: usize, cid: Cid) -> Option<(&mut Line, usize)> {
        let (index, number) = self.line_of(cid)?;
        let line = &mut self.lines[index];
        let at = number.checked_sub(line.oldest)? as usize;
        let open = &mut line.open[at];
        (line.seat == seat && open.ms == cid.ms && open.awaited > 0).then_some(())?;
        open.awaited -= 1;
        Some((line, at))
    }

    fn on_committed(
        &mut self,
        seat: usize,
        member: usize,
        cid: Cid,
        conv: &[u8],
        again: bool,
        place: NumberedMessage,
    ) -> Option<Verdict> {
        let (index, number) = self.line_of(cid)?;
        if number < self.lines[index].oldest {
            return Some(Verdict::Twice);
        }
        let (line, at) = self.on_answer(seat, cid)?;
        line.template.is_named(conv).then_some(())?;
        let (room, open) = (line.room, &mut line.open[at]);
        if std::mem::replace(&mut open.is_acknowledged, true) {
            return Some(Verdict::Twice);
        }
        let due = open.due;
        line.unacknowledged -= 1;
        line.retire(at);
        let verdict = Verdict::Acknowledged { line: index, due };
        if again {
            // A repeated acknowledgement moves no cursor: the message itself comes, or has come.
            return self.rooms[room].agrees(cid, place).then_some(verdict);
        }
        Some(self.rooms[room].show(seat, member, cid, place)?.unwrap_or(verdict))
    }

    fn on_refused(&mut self, seat: usize, cid: Cid, until: Instant) -> Option<Verdict> {
        let line = cid.line as usize;
        let (of_line, _) = self.on_answer(seat, cid)?;
        let was_paused = of_line.pause.is_some();
        of_line.pause = Some(of_line.pause.map_or(until, |before| before.max(until)));
        if !was_paused {
            self.paused.push(line);
        }
        Some(Verdict::Postponed)
    }

    fn on_pushed(&mut self, seat: usize, member: usize, cid: Cid, frame: &[u8]) -> Option<Verdict> {
        let (index, number) = self.line_of(cid)?;
        let line = &self.lines[index];
        let place = line.template.place_in_push(frame)?;
        let room = &mut self.rooms[line.room];
        let trouble = room.show(seat, member, cid, place)?;
        if trouble == Some(Verdict::Twice) {
            return trouble;
        }
        let line = &mut self.lines[index];
        let at = number.checked_sub(line.oldest)? as usize;
        let open = line.open.get_mut(at)?;
        let due = open.due;
        // The sender is shown its own message only if the acknowledgement was a repeated one.
        if line.seat == seat {
            return None;
        }
        open.left = open.left.checked_sub(1)?;
        line.retire(at);
        Some(trouble.unwrap_or(Verdict::Delivered { line: index, due }))
    }
}

impl Line {
    /// Notes that one more connection has the message at this index.
    fn retire(&mut self, at: usize) {
        self.unfinished -= usize::from(self.open[at].is_over());
        while self.open.front().is_some_and(Open::is_over) {
            self.open.pop_front();
            self.oldest += 1;
        }
    }
}

impl Open {
    fn is_over(&self) -> bool {
        self.is_acknowledged && self.left == 0
    }
}

impl BookedRoom {
    /// Notes that a connection is shown a number. `None` if the connection is not in the room, or
    /// if the number belongs to another message. The inner value says what is wrong with the order.
    fn show(&mut self, seat: usize, member: usize, cid: Cid, place: NumberedMessage) -> Option<Option<Verdict>> {
        let (_, shown) = self.seats.get_mut(member).filter(|(of_member, _)| *of_member == seat)?;
        if place.seq <= *shown {
            return Some(Some(Verdict::Twice));
        }
        let is_next = place.seq == *shown + 1;
        *shown = place.seq;
        self.agrees(cid, place).then_some(())?;
        let known = &mut self.known[(place.seq - self.first) as usize];
        known.left -= 1;
        while self.known.front().is_some_and(|known| known.left == 0) {
            self.known.pop_front();
            self.first += 1;
        }
        Some((!is_next).then_some(Verdict::Hole))
    }

    /// Whether this number belongs to this message, as far as is known. A number that is not known
    /// yet belongs to it from now on.
    fn agrees(&mut self, cid: Cid, place: NumberedMessage) -> bool {
        let told = (cid.line, cid.number, place);
        let Some(at) = place.seq.checked_sub(self.first) else { return true };
        if at > FAR {
            return false;
        }
        let unknown = KnownMessage { whose: None, left: self.seats.len() };
        while self.known.len() <= at as usize {
            self.known.push_back(unknown);
        }
        *self.known[at as usize].whose.get_or_insert(told) == told
    }
}

/// A number so far ahead is wrong, and no memory is kept for it.
const FAR: u64 = 10_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::To;

    /// User 7 on connection 0 writes to user 9 on connection 1. The conversation begins with 10
    /// messages.
    struct Talk {
        books: Books,
        now: Instant,
        sends: Vec<String>,
    }

    impl Talk {
        fn with(messages: usize) -> Talk {
            let mut books = Books::new(0xf005);
            let template = SendTemplate::new(7, To::User(9), 100).expect("it fits");
            books.add(Conversation { seats: vec![0, 1], templates: vec![template], head: 10 });
            let mut talk = Talk { books, now: Instant::now(), sends: Vec::new() };
            (0..messages).for_each(|_| talk.send());
            talk
        }

        fn send(&mut self) {
            let mut out = Vec::new();
            self.books.send(0, self.now, 1_789, &mut out);
            self.sends.extend(String::from_utf8(out).expect("text").lines().map(str::to_owned));
        }

        fn cid(&self, number: usize) -> String {
            serde_json::from_str::<serde_json::Value>(&self.sends[number]).expect("JSON")["cid"].to_string()
        }

        fn on(&mut self, seat: usize, frame: &str) -> Verdict {
            self.books.on_frame(seat, seat, format!("{frame}\n").as_bytes(), self.now)
        }

        fn acknowledge(&mut self, number: usize, seq: u64) -> Verdict {
            let cid = self.cid(number);
            self.on(
                0,
                &format!(
                    r#"{{"cid":{cid},"conv":"u9","errno":200,"msgType":41,"seq":{seq},"tag":"5be0717c","time":5}}"#
                ),
            )
        }

        fn refuse(&mut self, number: usize) -> Verdict {
            let cid = self.cid(number);
            self.on(0, &format!(r#"{{"cid":{cid},"errmsg":"away","errno":503,"msgType":41,"retryAfter":2}}"#))
        }

        fn push(&mut self, number: usize, seq: u64) -> Verdict {
            let m = &self.sends[number];
            let frame =
                format!(r#"{{"conv":"u7","from":7,"m":{m},"msgType":42,"seq":{seq},"tag":"5be0717c","time":5}}"#);
            self.on(1, &frame)
        }
    }

    fn is_good(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Acknowledged { .. } | Verdict::Delivered { .. })
    }

    #[test]
    fn a_message_that_is_acknowledged_and_shown_once_is_done() {
        let mut talk = Talk::with(3);
        assert_eq!((talk.books.unacknowledged(0), talk.books.missing()), (3, 6));
        for number in [0, 1] {
            assert!(is_good(&talk.push(number, 11 + number as u64)));
            assert!(is_good(&talk.acknowledge(number, 11 + number as u64)));
        }
        assert!(is_good(&talk.acknowledge(2, 13)));
        assert_eq!((talk.books.unacknowledged(0), talk.books.on_their_way(0)), (0, 1));
        assert!(is_good(&talk.push(2, 13)));
        assert_eq!((talk.books.missing(), talk.books.on_their_way(0), talk.books.sent()), (0, 0, 3));
    }

    #[test]
    fn every_broken_promise_is_noticed() {
        let mut talk = Talk::with(4);
        assert!(is_good(&talk.acknowledge(0, 11)));
        assert_eq!(talk.acknowledge(0, 11), Verdict::Foreign, "nobody has sent it again");
        assert_eq!(talk.acknowledge(1, 13), Verdict::Hole);
        assert_eq!(talk.push(1, 11), Verdict::Foreign, "11 is another message");
        let mut talk = Talk::with(4);
        assert!(is_good(&talk.push(0, 11)));
        assert_eq!(talk.push(0, 11), Verdict::Twice);
        assert_eq!(talk.push(2, 13), Verdict::Hole);
        assert_eq!(talk.books.missing(), 6, "three acknowledgements, two deliveries, and one that is late for ever");
        assert_eq!(talk.on(1, r#"{"errno":404,"msgType":404}"#), Verdict::Foreign);
        assert_eq!(talk.acknowledge(0, 12), Verdict::Hole, "the number of another, or none");
    }

    #[test]
    fn the_number_of_a_message_is_the_same_for_everybody() {
        let mut talk = Talk::with(2);
        assert!(is_good(&talk.acknowledge(0, 11)));
        assert_eq!(talk.push(1, 11), Verdict::Foreign);
        let mut talk = Talk::with(1);
        assert!(is_good(&talk.acknowledge(0, 11)));
        let m = talk.sends[0].clone();
        let other_tag = format!(r#"{{"conv":"u7","from":7,"m":{m},"msgType":42,"seq":11,"tag":"5be0717d","time":5}}"#);
        assert_eq!(talk.on(1, &other_tag), Verdict::Foreign);
    }

    #[test]
    fn failed_messages_are_retried_in_order_before_newer_ones() {
        let mut talk = Talk::with(3);
        assert!(is_good(&talk.acknowledge(0, 11)));
        assert_eq!(talk.refuse(1), Verdict::Postponed);
        talk.send();
        assert_eq!(talk.sends.len(), 3, "the fourth waits");
        assert_eq!(talk.books.unacknowledged(0), 3);
        let later = talk.now + Duration::from_secs(3);
        assert_eq!(talk.books.take_rested(later), [], "the third has no answer yet");
        assert_eq!(talk.refuse(2), Verdict::Postponed);
        assert_eq!(talk.books.take_rested(talk.now), [], "it is too early");
        assert_eq!(talk.books.take_rested(later), [(0, 0)]);
        let mut out = Vec::new();
        talk.books.resend(0, 1_790, &mut out);
        let again: Vec<String> = String::from_utf8(out).expect("text").lines().map(str::to_owned).collect();
        assert_eq!(again[..2], talk.sends[1..3]);
        assert_eq!((again.len(), talk.books.resent), (3, 2));
        talk.sends.push(again[2].clone());
        for number in [1, 2, 3] {
            assert!(is_good(&talk.acknowledge(number, 11 + number as u64)));
        }
    }
}
