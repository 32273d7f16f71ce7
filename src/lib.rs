//! spark3d pre-trains 3D residual-encoder U-Nets on unlabelled brain MRI as sparse masked autoencoders, fine-tunes them on
//! labelled scans and segments others with them, on any GPU that wgpu reaches. This page is its architecture;
//! `tests/layering.rs` holds the code to the table at the end.
//!
//! # Bird's-eye view
//!
//! A [`tasks::plan`] says everything about a run. The **data side** ([`formats`], [`data::preprocess`], [`data::store`], [`data::dataset`],
//! [`data::augment`]) turns NIfTI files into a store and the store into patches. The **compute side** ([`compute::device`], [`compute::graph`], [`compute::ops`], [`compute::model`],
//! [`tasks::pretext`]) turns a network into a static graph of one sample, differentiates it into one longer graph, plans its memory
//! and records it as dispatches. The two meet in [`training`], [`training::finetune`], [`inference::predict`] and [`inference::reconstruct`], where a patch is handed
//! over, and know only [`base::volume`] in common. [`evaluation::evaluate`] needs neither: it compares label maps by [`evaluation::metric`].
//!
//! # How a step runs
//!
//! 1. [`data::dataset::Loader`] reads the part of a scan that a patch is made of and draws what becomes of it: a pure function of (seed,
//!    step, sample), whatever the number of threads. The voxels are changed on the device, by the first nodes of the graph
//!    ([`compute::ops::augment`]); [`data::augment`] has the same on the CPU, as their reference.
//! 2. [`tasks::pretext::mae`] draws which blocks are hidden. The mask becomes a table block → slot that every shader reads.
//! 3. [`compute::graph::Session`] runs the recorded graph: encoder over visible blocks, densification, dense decoder, squared error on
//!    hidden voxels, and all of it backwards. Gradients of parameters add up in place.
//!    Another [`tasks::pretext::Pretext`] draws other numbers and has another graph; [`training::task`] is the one place that knows what each
//!    uploads. What moves voxels runs on the device: [`compute::ops::distort`], [`compute::ops::fuse`].
//! 4. After the last sample of the batch, [`compute::ops::sgd`] clips the gradient and updates the weights.
//!
//! **A batch is a loop over samples**, not an axis. Norms are per sample, so nothing is lost, and memory is that of one sample.
//!
//! # A large collection
//!
//! [`data::preprocess::run`](data::preprocess::run()) turns tens of thousands of scans into a store: a case is one sharded array, and all of
//! them are in one manifest, which is all that opening a store reads. What is done stands in a journal until the manifest takes
//! its place, so that a run goes on after a kill or a full disk, and several machines can share the work
//! ([`data::store::Part`]). Names of cases and the order of bytes depend on the list of scans alone, so that the store is the same,
//! bit for bit, however it came about. [`data::dataset::LoaderReport`] says where the time of reading patches goes.
//!
//! # From pre-training to a segmentation
//!
//! [`training::drive`] is the loop of every training. [`training::pretrain`] gives it the autoencoder; [`training::finetune`] gives it the same
//! encoder with a new decoder and Dice + cross entropy, in phases that train a part of the network: what is frozen has no
//! gradient nodes. Where the loss joins the samples of a batch (batch Dice, ignored voxels), the graph holds them all. The run
//! folder of a fine-tuning is a model folder of nnU-Net's layout: `plans.json` and `dataset.json` describe the model,
//! [`inference::weights`] reads its checkpoints and those of nnU-Net and nnssl alike, and [`inference::predict`] slides the network over a scan, slab by
//! slab, so that the logits of a whole scan are never in memory. Before all this, [`data::planning`] may decide by nnU-Net's rules which
//! voxel size, patch and network suit the data set.
//!
//! # Comparing methods
//!
//! [`training::experiment`] turns a file into jobs, pre-trainings and fine-tunings, whose keys are hashes of all that makes their results, and
//! does those that are missing, through the same functions as the commands. [`evaluation::results`] keeps scores by case and class, curves and
//! plans in one SQLite file; files of several machines are united row by row. [`evaluation::compare`] makes tables, ranks and tests of them, and
//! of the paper's own numbers with the same functions.
//!
//! # Spaces and quads
//!
//! A feature tensor is channels over a [`compute::graph::Space`]: the voxels of a volume, or of its visible blocks only. The mask's cells
//! are whole blocks at every stage, so one table serves all stages; dense is the space without a mask. Every kernel finds a
//! neighbour through `find` of `shaders/shared/space.wgsl`, which answers NONE outside the volume and in hidden blocks: both read
//! as zero, which is exactly the reference's multiplication by the mask. Channels lie in quads (vectors of four), quad by quad;
//! channels that fill up the last quad stay zero. Where a tensor exceeds the adapter's binding limit it is cut into segments of
//! whole quads, and a convolution adds up over the segments of its input, as it does over the parts of a concatenation, which is
//! never made.
//!
//! Feature tensors have 32 bits, or 16 where [`compute::graph::Graph`]'s precision says so: the alias `Feature` of the shaders. Kernels
//! compute in 32 bits either way, and whatever is not a feature (parameters, statistics, partial sums) is stored so. Training
//! with 16 bits scales the loss: [`training::loss_scale`].
//!
//! # Memory
//!
//! [`compute::graph::plan`] knows the first and last node of every tensor and places them in one arena, largest first. Gradients take the
//! place of what they replace. When a budget is given, [`training::memory`] lets the backward pass compute cheap activations again,
//! as few as fit. What is planned is what is allocated.
//!
//! # An operator
//!
//! is a file or a folder of [`compute::ops`], and a folder of `shaders/`: shape rule, dispatches, gradient as further nodes. Its specification is a
//! plain loop in [`compute::ops::reference`]; [`compute::ops::cases`] is one list that tests, `doctor` and `bench` share. A variant is a value: an
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
//! [`compute::device::KernelTable`] may know better. `spark3d bench --tune` fills that table: every candidate runs on the memory of a real
//! session ([`compute::graph::Session::tune`]), and the fastest is kept for the adapter and driver. Nothing is timed behind a training's
//! back: kernels add in different orders, and a run that goes on must find the kernels that it started with.
//!
//! # What is absent
//!
//! - `wgpu` outside of [`compute::device`]; printing and exiting outside of the command line and [`base::progress`].
//! - Atomics on floats, and any other sum whose order varies: the same adapter, driver and plan give the same bits.
//! - A stream of random numbers: every draw is keyed ([`base::random`]), so a resumed run cannot tell that it was stopped.
//! - Knowledge of the data side in the compute side, and the reverse.
//!
//! # Who may use whom
//!
//! Twelve entries in `src/`, each with one purpose. `tests/layering.rs` holds the code to this table, and refuses cycles between
//! folders at any depth.
//!
//! | module | may use | purpose |
//! |---|---|---|
//! | base | | what every other module may use: errors, random numbers by key, volumes, files that appear whole |
//! | formats | base | files of other programs: NIfTI, nnU-Net's folders, PyTorch's checkpoints |
//! | data | base, formats | the data side: from scans to a store, from the store to patches |
//! | compute | base | the compute side: the device, static graphs, operators, networks |
//! | evaluation | base, formats | scores of label maps, results of many runs, their comparison, pictures |
//! | tasks | base, data, compute, evaluation | what a network is trained for, and the plans that say so |
//! | inference | base, formats, data, compute, evaluation, tasks | what is done with a trained network: reading weights, predicting, reconstructing, converting |
//! | training | base, formats, data, compute, evaluation, tasks, inference | the training loop, pre-training, fine-tuning, experiments |
//! | bench | base, data, compute, tasks, training | timing, and the adapter's roofline |
//! | cli | * | the command line |
//!
//! `lib.rs` is this page, `main.rs` the program.

pub mod base;
pub mod bench;
pub mod cli;
pub mod compute;
pub mod data;
pub mod evaluation;
pub mod formats;
pub mod inference;
pub mod tasks;
pub mod training;
