//! When messages of level 2 arrive again after a fault.
//!
//! Only [calm](Device::is_calm) devices count: each accident of another one delays its messages.

use crate::books::Moment;
use crate::devices::{Desk, Device};
use raybox_client::Conv;

/// The moment from which on every calm device has received a message that each calm partner has
/// sent since then. `None`: one is still missing.
pub fn delivered(devices: &[Device], desks: &[Desk], since: Moment) -> Option<Moment> {
    let calm: Vec<_> = devices.iter().zip(desks).filter(|(device, _)| device.is_calm).collect();
    let mut latest = since;
    for (device, desk) in &calm {
        let partners = calm.iter().filter(|(partner, _)| device.writes_to(Conv::User(partner.id)));
        for (partner, partners_desk) in partners {
            let seqs = desk.acknowledged_since(Conv::User(partner.id), since);
            let arrived = seqs.iter().filter_map(|seq| partners_desk.arrival(Conv::User(device.id), *seq)).min()?;
            latest = latest.max(arrived);
        }
    }
    Some(latest)
}
