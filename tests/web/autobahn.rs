//! The cases of the Autobahn test suite, sections 1 to 7, 9 and 10, as far as they apply: messages
//! are JSON objects, binary messages and compression are refused.
