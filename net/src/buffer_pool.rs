//! [`BufferPool`]: memory for outputs, of one thread.

use crate::output::Output;

/// Empty outputs of one thread that still have their memory.
///
/// The outputs are boxed because a link has room for a pointer only: most links have nothing to
/// write.
#[derive(Debug, Default)]
#[expect(clippy::vec_box)]
pub(crate) struct BufferPool {
    spare: Vec<Box<Output>>,
}

impl BufferPool {
    const OUTPUTS_MAX: usize = 256;
    const BYTES_MAX: usize = 64 * 1024;

    pub(crate) fn get(&mut self) -> Box<Output> {
        self.spare.pop().unwrap_or_default()
    }

    pub(crate) fn put(&mut self, mut output: Box<Output>) {
        debug_assert!(output.is_empty());
        if self.spare.len() < Self::OUTPUTS_MAX && output.memory() <= Self::BYTES_MAX {
            output.clear();
            self.spare.push(output);
        }
    }
}
