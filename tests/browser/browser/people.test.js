// Users with browsers use the web client. They share one browser and one server, and some tests run
// at the same time. A test that stops its server has one of its own.

import { after, before, describe } from 'node:test';
import { close, open } from '../support/place.js';
import { devices } from './devices.js';
import { faults } from './faults.js';
import { keyboard } from './keyboard.js';
import { looks } from './looks.js';
import { relations } from './relations.js';
import { speed } from './speed.js';
import { status } from './status.js';
import { talk } from './talk.js';
import { versions } from './versions.js';

describe('people in browsers', { concurrency: 4 }, () => {
  before(open);
  after(close);
  // The longest tests come first.
  faults();
  looks();
  status();
  talk();
  keyboard();
  relations();
  devices();
  versions();
  speed();
});
