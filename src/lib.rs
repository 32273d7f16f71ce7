//! spark3d pre-trains 3D residual-encoder U-Nets on unlabelled brain MRI as sparse masked autoencoders, fine-tunes them on
//! labelled scans and segments others with them, on any GPU that wgpu reaches. This page is its architecture;
//! `tests/layering.rs` holds the code to the table at the end.
//!
//! # Bird's-eye view
//!
//! A [`plan`] says everything about a run. The **data side** ([`io`], [`preprocess`], [`dataset`], [`augment`]) turns NIfTI
//! files into a store and the store into patches. The **compute side** ([`device`], [`graph`], [`ops`], [`model`],
//! [`pretext`]) turns a network into a static graph of one sample, differentiates it into one longer graph, plans its memory
//! and records it as dispatches. The two meet in [`train`], [`finetune`], [`infer`] and [`reconstruct`], where a patch is handed
//! over, and know only [`volume`] in common. [`evaluate`] needs neither: it compares label maps by [`metric`].
//!
//! # How a step runs
//!
//! 1. [`dataset::Loader`] reads the part of a scan that a patch is made of and draws what becomes of it: a pure function of (seed,
//!    step, sample), whatever the number of threads. The voxels are changed on the device, by the first nodes of the graph
//!    ([`ops::augment`]); [`augment`] has the same on the CPU, as their reference.
//! 2. [`pretext::mae`] draws which blocks are hidden. The mask becomes a table block → slot that every shader reads.
//! 3. [`graph::Session`] runs the recorded graph: encoder over visible blocks, densification, dense decoder, squared error on
//!    hidden voxels, and all of it backwards. Gradients of parameters add up in place.
//!    Another [`pretext::Pretext`] draws other numbers and has another graph; [`train::task`] is the one place that knows what each
//!    uploads. What moves voxels runs on the device: [`ops::distort`], [`ops::fuse`].
//! 4. After the last sample of the batch, [`ops::sgd`] clips the gradient and updates the weights.
//!
//! **A batch is a loop over samples**, not an axis. Norms are per sample, so nothing is lost, and memory is that of one sample.
//!
//! # A large collection
//!
//! [`preprocess::run`](preprocess::run()) turns tens of thousands of scans into a store: a case is one sharded array, and all of
//! them are in one manifest, which is all that opening a store reads. What is done stands in a journal until the manifest takes
//! its place, so that a run goes on after a kill or a full disk, and several machines can share the work
//! ([`preprocess::Part`]). Names of cases and the order of bytes depend on the list of scans alone, so that the store is the same,
//! bit for bit, however it came about. [`dataset::LoaderReport`] says where the time of reading patches goes.
//!
//! # From pre-training to a segmentation
//!
//! [`train::drive`] is the loop of every training. [`train::pretrain`] gives it the autoencoder; [`finetune`] gives it the same
//! encoder with a new decoder and Dice + cross entropy, in phases that train a part of the network: what is frozen has no
//! gradient nodes. Where the loss joins the samples of a batch (batch Dice, ignored voxels), the graph holds them all. The run
//! folder of a fine-tuning is a model folder of nnU-Net's layout: `plans.json` and `dataset.json` describe the model,
//! [`weights`] reads its checkpoints and those of nnU-Net and nnssl alike, and [`infer`] slides the network over a scan, slab by
//! slab, so that the logits of a whole scan are never in memory. Before all this, [`planning`] may decide by nnU-Net's rules which
//! voxel size, patch and network suit the data set.
//!
//! # Comparing methods
//!
//! [`experiment`] turns a file into jobs, pre-trainings and fine-tunings, whose keys are hashes of all that makes their results, and
//! does those that are missing, through the same functions as the commands. [`results`] keeps scores by case and class, curves and
//! plans in one SQLite file; files of several machines are united row by row. [`compare`] makes tables, ranks and tests of them, and
//! of the paper's own numbers with the same functions.
//!
//! # Spaces and quads
//!
//! A feature tensor is channels over a [`graph::Space`]: the voxels of a volume, or of its visible blocks only. The mask's cells
//! are whole blocks at every stage, so one table serves all stages; dense is the space without a mask. Every kernel finds a
//! neighbour through `find` of `shaders/shared/space.wgsl`, which answers NONE outside the volume and in hidden blocks: both read
//! as zero, which is exactly the reference's multiplication by the mask. Channels lie in quads (vectors of four), quad by quad;
//! channels that fill up the last quad stay zero. Where a tensor exceeds the adapter's binding limit it is cut into segments of
//! whole quads, and a convolution adds up over the segments of its input, as it does over the parts of a concatenation, which is
//! never made.
//!
//! Feature tensors have 32 bits, or 16 where [`graph::Graph`]'s precision says so: the alias `Feature` of the shaders. Kernels
//! compute in 32 bits either way, and whatever is not a feature (parameters, statistics, partial sums) is stored so. Training
//! with 16 bits scales the loss: [`train::loss_scale`].
//!
//! # Memory
//!
//! [`graph::plan`] knows the first and last node of every tensor and places them in one arena, largest first. Gradients take the
//! place of what they replace. When a budget is given, [`train::memory`] lets the backward pass compute cheap activations again,
//! as few as fit. What is planned is what is allocated.
//!
//! # An operator
//!
//! is a file or a folder of [`ops`], and a folder of `shaders/`: shape rule, dispatches, gradient as further nodes. Its specification is a
//! plain loop in [`ops::reference`]; [`ops::cases`] is one list that tests, `doctor` and `bench` share. A variant is a value: an
//! `override` constant of a shader, a field of the plan, never a subclass.
//!
//! # Which kernel
//!
//! A convolution has families of kernels: direct (weights and inputs are read where they are needed), staged and gathered (they
//! wait in workgroup memory), subgroup (the invocations of a subgroup hold weights and broadcast them) and matrix (cooperative
//! matrices: 16-bit factors, 32-bit sums, first choice of a GPU that has them for features of 16 bits), each cut into tiles of
//! several sizes. Forward, the gradient of the input, strided or not, and the transposed convolution are the same sum over a
//! window with other matrices, `shaders/shared/pass.wgsl`, so that a kernel written once serves all of them. Shaders are
//! templates, because what is in registers must be written out. An operator names its problem and the kernels that can solve
//! it, the likely best first;
//! [`device::KernelTable`] may know better. `spark3d bench --tune` fills that table: every candidate runs on the memory of a real
//! session ([`graph::Session::tune`]), and the fastest is kept for the adapter and driver. Nothing is timed behind a training's
//! back: kernels add in different orders, and a run that goes on must find the kernels that it started with.
//!
//! # What is absent
//!
//! - `wgpu` outside of [`device`]; printing and exiting outside of the command line and [`progress`].
//! - Atomics on floats, and any other sum whose order varies: the same adapter, driver and plan give the same bits.
//! - A stream of random numbers: every draw is keyed ([`random`]), so a resumed run cannot tell that it was stopped.
//! - Knowledge of the data side in the compute side, and the reverse.
//!
//! # Who may use whom
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
//! | metric | |
//! | planning | error, atomic, dataset, io, preprocess |
//! | device | error, atomic |
//! | graph | error, device |
//! | ops | error, device, graph, random |
//! | model | error, graph, ops, random |
//! | pretext | error, graph, ops, model, random |
//! | weights | error, graph, io, model |
//! | infer | error, atomic, device, graph, model, io, preprocess, dataset, weights |
//! | report | error, atomic, volume |
//! | results | error |
//! | compare | error, atomic, random, report, results |
//! | plan | error, augment, graph, model, pretext |
//! | train | error, atomic, augment, device, graph, model, ops, plan, pretext, dataset, random, progress, report, volume |
//! | evaluate | error, atomic, io, metric, report |
//! | finetune | error, atomic, augment, dataset, device, evaluate, graph, infer, io, model, ops, plan, preprocess, progress, report, train, weights |
//! | experiment | error, dataset, device, evaluate, finetune, graph, plan, preprocess, progress, results, train, weights |
//! | convert | error, atomic, infer, io, model, plan, preprocess, train, weights |
//! | bench | error, device, graph, ops, model, plan, pretext, train, finetune, dataset, random |
//! | reconstruct | error, volume, device, graph, model, plan, pretext, train, io, preprocess, infer, report, random |
//! | cli | * |

pub mod atomic;
pub mod augment;
pub mod bench;
pub mod cli;
pub mod compare;
pub mod convert;
pub mod dataset;
pub mod device;
pub mod error;
pub mod evaluate;
pub mod experiment;
pub mod finetune;
pub mod graph;
pub mod infer;
pub mod io;
pub mod metric;
pub mod model;
pub mod ops;
pub mod plan;
pub mod planning;
pub mod preprocess;
pub mod pretext;
pub mod progress;
pub mod random;
pub mod reconstruct;
pub mod report;
pub mod results;
pub mod train;
pub mod volume;
pub mod weights;
