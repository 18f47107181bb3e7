export const en = {
  // Logging in
  tagline: 'Chat with the people of this server.',
  logIn: 'Log in', register: 'Create account', name: 'Name', password: 'Password', passwordAgain: 'Password again',
  noAccount: 'New here?', haveAccount: 'Already have an account?', passwordsDiffer: 'The two passwords differ.',
  nameHint: '1 to 50 characters', passwordHint: 'at most 56 characters',
  nameTaken: 'This name is taken or not allowed, or the server is busy. Try another one.',
  signedOut_revoked: 'This device was logged out.', signedOut_expired: 'Your session has ended. Log in again.',
  signedOut_deleted: 'The account is deleted.',
  // The list
  conversations: 'Conversations', filter: 'Search conversations', nothingFound: 'Nothing found.',
  noConversations: 'No conversations yet. Find somebody to write to.', find: 'Find people and groups',
  people: 'People and groups', settings: 'Settings', notes: 'Notes to myself', unreadCount: '{count} unread',
  you: 'You', draft: 'Draft', deletedUser: 'Deleted user', unknownUser: 'User {id}', group: 'Group {id}',
  welcomeTitle: 'Your messages', welcomeText: 'Choose a conversation, or find people by their name. Your number is {id}.',
  // The connection
  connecting: 'Connecting …', syncing: 'Catching up …', offline: 'Offline. What you write is sent later.',
  offlineUntil: 'Offline. Next attempt in {seconds} s. What you write is sent later.', tryNow: 'Try now', online: 'Online',
  replaced: 'This device is connected somewhere else.', useHere: 'Use it here', trouble: 'This browser cannot store anything, so do not close the page before your messages are sent. {message}',
  // A conversation
  back: 'Back to the list', details: 'Details', isOnline: 'online', isOffline: 'offline', typingUser: 'is typing …', typingOf: '{name} is typing …',
  membersCount: 'Members: {count}', messages: 'Messages', write: 'Write a message', send: 'Send', today: 'Today', yesterday: 'Yesterday',
  newMessages: 'New messages', toLatest: 'To the latest message', loadFailed: 'This part is not stored here, and there is no connection.',
  showAll: 'Show all ({count} characters)', beginning: 'This is the beginning of the conversation.', closed403: 'You are no longer a member. You can still read what is stored here.',
  closed404: 'This group is gone. You can still read what is stored here.', closedUser: 'This account is gone. You can still read what is stored here.',
  newVersion: 'There is a new version.', reload: 'Load it', forget: 'Delete from this device',
  pending: 'waiting to be sent', sent: 'sent', delivered: 'delivered', read: 'read', failed: 'not sent', edited: 'edited', imported: 'from older messages: the sender is not confirmed',
  recalled: 'This message was taken back.', edit: 'Edit', recall: 'Take back', copy: 'Copy text', copied: 'Copied.', retry: 'Send again', discard: 'Delete',
  editing: 'Editing a message', cancel: 'Cancel', save: 'Save', changeFailed: 'A change was refused: {text}', actions: 'Actions for this message',
  recallSure: 'Take this message back for everybody?', tooLong: 'The message is too long.', otherMessage: 'A message of another kind',
  // Events
  event_created: '{by} created the group', event_joined: '{name} joined', event_left: '{name} left', event_removed: '{by} removed {name}',
  event_added: '{by} added {name}', event_renamed: '{by} renamed the group to “{name}”', event_dissolved: '{by} dissolved the group', event_creator: '{name} is the creator now',
  friendRequest: '{name} would like to be friends.', friendRequestMine: 'You asked to be friends.', becameFriends: '{name} added you as a friend.', becameFriendsMine: 'You added a friend.',
  accept: 'Accept', block: 'Block', unblock: 'Unblock',
  // People
  friends: 'Friends', findTab: 'Find', requests: 'Requests', blocked: 'Blocked', searchLabel: 'Name or number of a person or a group',
  searchHint: 'People are found by their whole name, or by their number. Yours is {id}.', search: 'Search', message: 'Message', addFriend: 'Add friend', removeFriend: 'Remove friend', join: 'Join',
  noFriends: 'No friends yet.', noRequests: 'No requests.', nobodyBlocked: 'Nobody is blocked.', requestSent: 'Request sent.', friendAdded: 'You are friends now.', friendAsked: 'The other one has to agree.',
  newGroup: 'New group', groupName: 'Name of the group', description: 'Description', create: 'Create', number: 'Number {id}', isBlocked: 'Blocked.', isUnblocked: 'No longer blocked.',
  blockSure: 'Block {name}? {name} can no longer write to you.', open: 'Open',
  // Groups
  members: 'Members', creator: 'creator', addMember: 'Add somebody by number', add: 'Add', remove: 'Remove', removeSure: 'Remove {name} from the group?', leave: 'Leave group', leaveSure: 'Leave this group?',
  dissolve: 'Dissolve group', dissolveSure: 'Dissolve this group for everybody?', saved: 'Saved.',
  // Settings
  profile: 'Profile', yourNumber: 'Your number', numberHint: 'Others find you by your name, or by this number.', changeName: 'Change name', receipts: 'Show others how far I have read, and see theirs',
  changePassword: 'Change password', oldPassword: 'Present password', newPassword: 'New password', passwordChanged: 'Password changed. Other devices are logged out.',
  devices: 'Devices', thisDevice: 'this device', lastSeen: 'last seen {time}', logOutDevice: 'Log out', logOutDeviceSure: 'Log out {name}?',
  notifications: 'Notifications', enableNotifications: 'Turn on notifications', notificationsOn: 'Notifications are on.', notificationsBlocked: 'This browser does not allow notifications for this page.',
  appearance: 'Appearance', language: 'Language', theme: 'Colours', system: 'like the system', light: 'light', dark: 'dark',
  account: 'Account', logOut: 'Log out', logOutSure: 'Log out? What is stored on this device is deleted, and {count} messages that are not sent yet.', logOutSureNone: 'Log out? What is stored on this device is deleted.',
  deleteAccount: 'Delete account', deleteSure: 'The account is deleted for ever. Messages stay with those who got them.', close: 'Close', ok: 'OK',
  newMessageFrom: '{name}: {text}', tryAgainIn: 'Try again in {seconds} s.',
  // Errors
  error0: 'There is no connection.', error403_user: 'This person does not take messages from you.', error403_group: 'You are no longer a member of this group.', error403_change: 'It can only be changed by you, and for a limited time.',
  error404_user: 'This person does not exist.', error404_group: 'This group is gone.', error404_change: 'The message is gone.',
  error302: 'The name or the password is wrong.', error403: 'You may not do this.', error404: 'There is no such person, group or message.',
  error409: 'This name is taken.', error413: 'The message is too long.', error429: 'Too many attempts.', error501: 'This server is too old for this client.', error503: 'The server is busy.',
};
