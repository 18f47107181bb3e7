//! Devices and their logins.

use raybox::base::conversation::ConversationId;
use raybox::protocol::UserId;
use raybox::store::Accounts as _;
use raybox::store::history::{DeviceId, History as _, HistoryReads as _, LoginProof, NewDeviceLogin, SharedKey};

use super::{DAY, Opened, login, new_user, text};

pub(crate) fn devices_come_and_go(opened: &impl Opened) {
    let store = opened.store();
    let (ann, bob) = (new_user(&*store), new_user(&*store));
    let log_in = |login: &NewDeviceLogin| store.log_in(login).unwrap().unwrap();
    let phone = log_in(&login(ann, "phone", 11));
    assert_eq!((phone.replaced, phone.forgotten.len()), (None, 0));
    let again = log_in(&NewDeviceLogin { secret: [9; 16], ..login(ann, "phone", 12) });
    assert_eq!((again.replaced, again.device.id), (Some(phone.device.login), phone.device.id));
    assert!(again.device.login > phone.device.login, "a later login has a higher number");
    assert_eq!(again.device.secret, phone.device.secret, "older tokens go on");
    let renewed = log_in(&NewDeviceLogin { secret: [9; 16], renews_secret: true, ..login(ann, "phone", 15) });
    assert_eq!((renewed.device.id, renewed.device.secret), (phone.device.id, [9; 16]), "older tokens end");
    assert_eq!(store.device(phone.device.id).unwrap().map(|device| device.secret), Some([9; 16]));
    let upper = log_in(&login(ann, "PHONE", 13));
    assert_ne!(upper.device.id, phone.device.id);
    store.seen(&[phone.device.id]).unwrap();
    let conv = ConversationId::between(ann, bob);
    store.commit(&[text(conv, bob, "1")], DAY).unwrap();
    store.report(ann, upper.device.id, &[(conv, 1)]).unwrap();
    let third = log_in(&NewDeviceLogin { devices_max: 1, ..login(ann, "third", 14) });
    assert_eq!(third.forgotten.len(), 2);
    assert_eq!(store.devices(ann).unwrap(), std::slice::from_ref(&third.device));
    assert_eq!(store.device(phone.device.id).unwrap(), None);
    assert_eq!(store.cursors(upper.device.id).unwrap(), []);
    let logins = store.logins(&[phone.device.id, third.device.id]).unwrap();
    assert_eq!(logins, [(third.device.id, third.device.login)]);
    assert_eq!(store.forget(bob, &[third.device.id]).unwrap(), 0, "another's");
    assert_eq!(store.forget(ann, &[third.device.id, DeviceId(-1)]).unwrap(), 1);
    let back = log_in(&login(ann, "third", 15));
    assert!(back.device.id > third.device.id, "no id is given twice");
    let (tokens, marks) = (SharedKey::Tokens, SharedKey::JwtMarks);
    assert_eq!(store.stored_key(marks).unwrap(), None);
    let keys = (store.shared_key(tokens, [1; 32]).unwrap(), store.shared_key(marks, [3; 32]).unwrap());
    let second = opened.second();
    assert_eq!((second.shared_key(tokens, [2; 32]).unwrap(), second.shared_key(marks, [2; 32]).unwrap()), keys);
    assert_eq!(second.stored_key(marks).unwrap(), Some(keys.1));
    assert_eq!(store.stored_key(SharedKey::EarlierJwtMarks).unwrap(), None);
    assert_ne!(keys.0, keys.1);
    store.use_level2(bob).unwrap();
    store.use_level2(bob).unwrap();
    let before = UserId(ann.0.min(bob.0) - 1);
    let users = store.level2_users_after(before, 100).unwrap();
    assert!(users.contains(&bob) && !users.contains(&ann), "{users:?}");
}

pub(crate) fn a_login_is_written_only_if_what_was_proved_still_holds(opened: &impl Opened) {
    let store = opened.store();
    let (ann, bob) = (new_user(&*store), new_user(&*store));
    let proved = |proof| NewDeviceLogin { proof, ..login(ann, "phone", 1) };
    let other_password = proved(LoginProof::Password("X".to_owned()));
    assert_eq!(store.log_in(&other_password).unwrap(), None);
    assert_eq!(store.devices(ann).unwrap(), [], "nothing is written");
    let first = store.log_in(&login(ann, "phone", 1)).unwrap().unwrap();
    let phone = first.device;
    let token = |device, secret| proved(LoginProof::Token(device, secret));
    let again = store.log_in(&token(phone.id, phone.secret)).unwrap().unwrap();
    assert_eq!(again.device.id, phone.id);
    let name = store.user(ann).unwrap().unwrap().name;
    assert_eq!((first.user_name, again.user_name), (name.clone(), name));
    let web = NewDeviceLogin { name: "web".to_owned(), ..token(phone.id, phone.secret) };
    let of_bob = NewDeviceLogin { user: bob, ..token(phone.id, phone.secret) };
    for stale in [token(phone.id, [9; 16]), token(DeviceId(phone.id.0 + 1), phone.secret), web, of_bob] {
        assert_eq!(store.log_in(&stale).unwrap(), None, "{stale:?}");
    }
    assert_eq!(store.forget(ann, &[phone.id]).unwrap(), 1);
    assert_eq!(store.log_in(&token(phone.id, phone.secret)).unwrap(), None, "it is logged out");
    assert_eq!(store.log_in(&NewDeviceLogin { user: UserId(i32::MAX), ..login(ann, "d", 1) }).unwrap(), None);
}
