//! Carries out the commands of a member's pump.

use std::sync::Arc;

use super::{Member, Retry};
use crate::devices::effects::{MemberEffect, MemberEffects};
use crate::devices::tasks::{MemberTask, Overview};
use crate::history::pump::{Command, PumpEvent};

impl Member {
    /// Takes a 43 that was composed.
    pub(super) fn on_overview(&mut self, frame: Arc<str>, rest: Overview, effects: &mut MemberEffects) {
        let more = rest.shown < rest.heads.len();
        self.marks.overview(&rest.heads, rest.shown);
        self.overview = more.then_some(rest);
        self.pump.on(PumpEvent::Overview { frame, more }, &mut self.commands);
        if !more {
            self.carry_out(effects);
            self.marks.open();
        }
    }

    /// Has the void marks read.
    pub(super) fn ask_for_marks(&mut self, effects: &mut MemberEffects) {
        effects.extend(self.marks.next_void().map(|convs| MemberEffect::Do(MemberTask::Marks(convs))));
    }

    /// Carries out the pump's commands.
    pub(super) fn carry_out(&mut self, effects: &mut MemberEffects) {
        let (mut overview, mut page) = (None, None);
        for command in std::mem::take(&mut self.commands) {
            match command {
                Command::Write(frame) => self.outlet.write(frame, effects),
                Command::Overview => {
                    overview = self.ahead.as_mut().and_then(|ahead| ahead.overview.take());
                    if overview.is_none() {
                        let overview = self.overview.take().unwrap_or_default();
                        effects.push(MemberEffect::Do(MemberTask::Overview(overview)));
                    }
                }
                Command::Read { conv, from, to, is_new, written } => {
                    page = self.ahead.as_mut().and_then(|ahead| ahead.page(conv, from, written));
                    if page.is_none() {
                        effects.push(MemberEffect::Do(MemberTask::Read { conv, from, to, is_new, written }));
                    }
                }
                Command::Lost(conv) => {
                    self.marks.lose(conv);
                    self.ask_for_marks(effects);
                }
                Command::Pause => self.retry_later(Retry::Pump, effects),
                Command::StopRequests => self.takes_requests = false,
                Command::TakeRequests => self.takes_requests = true,
                Command::Close(reason) => return self.end(reason, effects),
            }
        }
        // The pump's next commands come after all these.
        if let Some((frame, rest)) = overview {
            self.on_overview(frame, rest, effects);
            self.carry_out(effects);
        } else if let Some(page) = page {
            self.pump.on(PumpEvent::Page(page), &mut self.commands);
            self.carry_out(effects);
        }
    }
}
