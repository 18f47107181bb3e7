// People with browsers use the web client. They share one browser and one server, and some of them are at work at the same
// time; a test that stops its server has one of its own.

import { after, before, describe } from 'node:test';
import { close, open } from '../support/place.js';
import { devices } from './devices.js';
import { faults } from './faults.js';
import { looks } from './looks.js';
import { relations } from './relations.js';
import { talk } from './talk.js';
import { versions } from './versions.js';

describe('people in browsers', { concurrency: 4 }, () => {
  before(open);
  after(close);
  // Those that take long come first.
  faults();
  looks();
  talk();
  relations();
  devices();
  versions();
});
