//! spark3d
//!
//! | module | may use |
//! |---|---|
//! | error | |
//! | volume | |
//! | random | |
//! | atomic | error |
//! | progress | |
//! | io | error, volume, atomic |
//! | preprocess | error, volume, atomic, io, dataset |
//! | augment | error, volume, random, preprocess |
//! | dataset | error, volume, atomic, random, io, preprocess, augment |
//! | infer | error |
//! | device | error |
//! | graph | error, device |
//! | ops | error, device, graph, random |
//! | model | error, graph, ops, random |
//! | pretext | error, graph, ops, model, random |
//! | report | error, atomic, volume |
//! | plan | error, augment, model, pretext |
//! | train | error, atomic, device, graph, model, ops, plan, pretext, dataset, random, progress, report, volume |
//! | reconstruct | error, volume, device, graph, model, plan, pretext, train, io, preprocess, infer, report, random |
//! | cli | * |

pub mod atomic;
pub mod augment;
pub mod cli;
pub mod dataset;
pub mod device;
pub mod error;
pub mod graph;
pub mod infer;
pub mod io;
pub mod model;
pub mod ops;
pub mod plan;
pub mod preprocess;
pub mod pretext;
pub mod progress;
pub mod random;
pub mod reconstruct;
pub mod report;
pub mod train;
pub mod volume;
