pub mod checkpoint;
pub mod log;
pub mod stop;
