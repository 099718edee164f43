//! What the module asks of the Linux kernel: processes and signals, descriptors, their limits and
//! how they pass from process to process. Knows nothing of httpd.

pub mod descriptors;
pub mod fdpass;
pub mod locks;
pub mod process;
pub mod room;
pub mod stop;
