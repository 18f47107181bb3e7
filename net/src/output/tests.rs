use proptest::prelude::*;

use super::*;

/// A socket that takes `step` bytes at a time, and a limited number in all.
pub(super) struct Socket {
    room: usize,
    step: usize,
    pub(super) writes: Vec<Vec<u8>>,
}

impl Socket {
    pub(super) fn taking(&mut self) -> impl FnMut(&[u8]) -> io::Result<usize> {
        |bytes| {
            let count = bytes.len().min(self.step).min(self.room);
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.room -= count;
            self.writes.push(bytes[..count].to_vec());
            Ok(count)
        }
    }
}

pub(super) fn socket(room: usize, step: usize) -> Socket {
    Socket { room, step, writes: Vec::new() }
}

fn write(output: &mut Output, room: usize) -> Written {
    output.write_to(socket(room, usize::MAX).taking(), Writing::Together)
}

/// Pushes a frame, with or without a newline after it.
pub(super) fn push(output: &mut Output, frame: &[u8], line: bool, fate: Fate) {
    let mut writer = FrameWriter::json();
    if line {
        writer.use_lines();
    }
    output.push(frame, &mut writer, fate);
}

pub(super) fn acknowledge(output: &mut Output, unacknowledged: usize) -> Vec<u32> {
    let mut reports = Vec::new();
    output.acknowledge(unacknowledged, &mut reports);
    reports
}

pub(super) fn texts(back: &[(Label, Box<[u8]>)]) -> Vec<(u32, &str)> {
    back.iter().map(|(label, frame)| (label.user, str::from_utf8(frame).unwrap())).collect()
}

#[test]
fn bare_frames_are_written_one_by_one_and_lines_together() {
    for (how, writes) in [
        (Writing::OneByOne, vec![b"ab".to_vec(), b"cde".to_vec()]),
        (Writing::Together, vec![b"abcde".to_vec()]),
        (Writing::First, vec![b"ab".to_vec()]),
    ] {
        let mut output = Output::default();
        push(&mut output, b"ab", false, Fate::Drop);
        push(&mut output, b"cde", false, Fate::Drop);
        let mut socket = socket(100, 100);
        assert_eq!(output.write_to(socket.taking(), how), Written::All);
        assert_eq!(socket.writes, writes);
        assert_eq!(output.is_empty(), how != Writing::First, "replies are not kept");
    }
}

#[test]
fn a_report_comes_when_the_last_byte_is_acknowledged() {
    let mut output = Output::default();
    push(&mut output, b"abc", true, Fate::Report(5));
    assert_eq!(write(&mut output, 3), Written::Blocked);
    assert_eq!((acknowledge(&mut output, 0), output.pending(), output.awaits_report()), (vec![], 1, false));
    assert_eq!(write(&mut output, 1), Written::All);
    assert!(output.awaits_report());
    assert_eq!(acknowledge(&mut output, 1), [], "the last byte is not there");
    assert_eq!(acknowledge(&mut output, 0), [5]);
    assert!(output.is_empty());
}

#[test]
fn frames_that_were_not_begun_come_back_from_a_living_connection_in_order_without_line_ends() {
    let mut output = Output::default();
    for (frame, user) in [("zero", 1), ("one", 1), ("two", 2), ("three", 1), ("four", 1)] {
        push(&mut output, frame.as_bytes(), true, Fate::Return(Label::of(user)));
    }
    write(&mut output, 6);
    let back = output.take_back(|label| label.user == 1, Back::Unwritten);
    assert_eq!(texts(&back), [(1, "three"), (1, "four")]);
    assert_eq!(output.pending(), 7, "what was begun and what is for others stays");
    let back = output.take_back(|_| true, Back::Unacknowledged);
    assert_eq!(texts(&back), [(1, "zero"), (1, "one"), (2, "two")]);
    assert_eq!(output.take_back(|_| true, Back::Unacknowledged), [], "they come back once");
}

#[test]
fn unacknowledged_bytes_come_back_rounded_to_whole_frames() {
    for (unacknowledged, expected) in [
        (0, &["late"][..]),
        (1, &["c-33", "late"]),
        (5, &["c-33", "late"]),
        (6, &["c-33", "late"]),
        (7, &["b-2", "c-33", "late"]),
        (8, &["b-2", "c-33", "late"]),
        (13, &["a-1", "b-2", "c-33", "late"]),
        (usize::MAX, &["a-1", "b-2", "c-33", "late"]),
    ] {
        let mut output = Output::default();
        // Written: 3 bytes, 3 bytes, a reply of 2 that is dropped, 4 bytes. The last frame is not
        // written.
        push(&mut output, b"a-1", false, Fate::Return(Label::of(1)));
        push(&mut output, b"b-2", false, Fate::Return(Label::of(1)));
        push(&mut output, b"{}", false, Fate::Drop);
        push(&mut output, b"c-33", false, Fate::Return(Label::of(1)));
        assert_eq!(write(&mut output, 100), Written::All);
        push(&mut output, b"late", false, Fate::Return(Label::of(1)));
        acknowledge(&mut output, unacknowledged);
        let back = output.take_back(|_| true, Back::Unacknowledged);
        let texts: Vec<_> = texts(&back).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, expected, "{unacknowledged} bytes are not acknowledged");
    }
}

#[test]
fn a_frame_that_was_begun_is_given_back_and_yet_written_to_its_end() {
    let mut output = Output::default();
    push(&mut output, b"begun", false, Fate::Return(Label::of(1)));
    push(&mut output, b"not begun", false, Fate::Return(Label::of(1)));
    push(&mut output, b"{}", false, Fate::Drop);
    write(&mut output, 2);
    let back = output.take_back(|_| true, Back::Unacknowledged);
    assert_eq!(texts(&back), [(1, "begun"), (1, "not begun")]);
    let mut socket = socket(100, 100);
    assert_eq!(output.write_to(socket.taking(), Writing::Together), Written::All);
    assert_eq!(socket.writes, [b"gun{}"]);
    assert!(output.is_empty());
}

#[test]
fn a_peer_that_owes_an_acknowledgement_is_noticed_from_one_look_to_the_next() {
    let (mut output, start) = (Output::default(), Instant::now());
    let later = |seconds| start + Duration::from_secs(seconds);
    push(&mut output, b"abc", false, Fate::Return(Label::of(1)));
    write(&mut output, 100);
    assert_eq!(output.waits_since(), None);
    output.note_progress(3, later(1));
    output.note_progress(3, later(2));
    assert_eq!(output.waits_since(), Some(later(1)));
    output.note_progress(2, later(3));
    assert_eq!(output.waits_since(), Some(later(3)), "it has acknowledged something");
    output.note_progress(0, later(4));
    assert_eq!(output.waits_since(), None);
}

#[test]
fn a_peer_that_acknowledges_what_was_written_before_makes_progress() {
    let (mut output, start) = (Output::default(), Instant::now());
    let later = |seconds| start + Duration::from_secs(seconds);
    push(&mut output, b"abc", false, Fate::Return(Label::of(1)));
    write(&mut output, 100);
    // The kernel still holds much of a reply that is no longer held here.
    output.note_progress(1_000_003, later(1));
    output.note_progress(600_003, later(2));
    assert_eq!(output.waits_since(), Some(later(2)));
    output.note_progress(600_003, later(3));
    assert_eq!(output.waits_since(), Some(later(2)));
}

#[test]
fn a_slow_reader_does_not_make_the_buffer_grow() {
    for fate in [Fate::Drop, Fate::Return(Label::of(1))] {
        let mut output = Output::default();
        for _ in 0..1000 {
            push(&mut output, &[7; 100], false, fate);
            output.write_to(socket(99, 99).taking(), Writing::OneByOne);
            if output.is_much_sent() {
                acknowledge(&mut output, 500);
            }
        }
        let kept = output.pending() + SENT_BYTES_STEP + 500;
        assert!(output.bytes.len() < 2 * kept + 1000, "{fate:?}: {}", output.bytes.len());
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push(usize, u32),
    Write(usize),
    Acknowledge(usize),
    TakeBack(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..40usize, 0..4u32).prop_map(|(len, user)| Step::Push(len, user)),
        (0..100usize).prop_map(Step::Write),
        (0..60usize).prop_map(Step::Acknowledge),
        (1..4u32).prop_map(Step::TakeBack),
    ]
}

proptest! {
    /// In all cases, each frame is completely acknowledged, or is returned in the end, in order.
    /// Both happen only to a frame that was written and not acknowledged when it was returned.
    #[test]
    fn nothing_is_lost_between_the_writer_and_the_peer(steps in prop::collection::vec(step(), 0..60)) {
        let mut output = Output::default();
        // The bytes that the peer's kernel has received, and the frames in the order of pushing,
        // each of which must have one fate.
        let (mut wire, mut pushed, mut got_back) = (Vec::new(), Vec::new(), Vec::new());
        let mut unacknowledged = 0;
        for (nth, step) in steps.into_iter().enumerate() {
            match step {
                Step::Push(len, user) => {
                    let frame = format!("[{nth}:{user}:{}]", "x".repeat(len));
                    let fate = if user == 0 { Fate::Drop } else { Fate::Return(Label::of(user)) };
                    push(&mut output, frame.as_bytes(), false, fate);
                    if user > 0 {
                        pushed.push((user, frame));
                    }
                }
                Step::Write(room) => {
                    let mut socket = socket(room, 7);
                    output.write_to(socket.taking(), Writing::OneByOne);
                    let bytes = socket.writes.concat();
                    unacknowledged += bytes.len();
                    wire.extend(bytes);
                }
                Step::Acknowledge(left) => {
                    unacknowledged = unacknowledged.min(left);
                    output.acknowledge(unacknowledged, &mut Vec::new());
                }
                Step::TakeBack(user) => {
                    let back = output.take_back(|label| label.user == user, Back::Unwritten);
                    got_back.extend(texts(&back).into_iter().map(|(user, text)| (user, text.to_owned())));
                }
            }
        }
        let back = output.take_back(|_| true, Back::Unacknowledged);
        let unsure: Vec<_> = texts(&back).into_iter().map(|(user, text)| (user, text.to_owned())).collect();
        let arrived = String::from_utf8(wire[..wire.len() - unacknowledged].to_vec()).unwrap();
        for frame in &pushed {
            let ends = (
                arrived.contains(&frame.1),
                got_back.contains(frame),
                unsure.contains(frame),
            );
            prop_assert!(
                matches!(ends, (true, false, false) | (false, true, false) | (false, false, true)),
                "{frame:?}: arrived, came back early, came back in the end: {ends:?}"
            );
        }
        for list in [&got_back, &unsure] {
            for user in 1..4 {
                let of_this_user: Vec<_> = list.iter().filter(|(other, _)| *other == user).collect();
                let in_order: Vec<_> = pushed.iter().filter(|frame| of_this_user.contains(frame)).collect();
                prop_assert_eq!(of_this_user, in_order);
            }
        }
    }
}
