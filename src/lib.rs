//! spark3d pre-trains 3D residual-encoder U-Nets on unlabelled brain MRI as sparse masked autoencoders, fine-tunes them on
//! labelled scans and segments others with them, on any GPU that wgpu reaches. This page is its architecture;
//! `tests/layering.rs` holds the code to the table at the end.
//!
//! # Overview
//!
//! A plan ([`tasks::plan`]) says everything about a run. The **data side** ([`formats`], [`data`]) turns NIfTI files into a store
//! and the store into patches. The **compute side** ([`compute`]) turns a network into a static graph, differentiates it into one
//! longer graph, plans its memory and records it as dispatches. Neither knows the other. They meet in [`tasks`]: a
//! [`Task`](tasks::task::Task) builds a graph and feeds it patches. [`training`] trains tasks, [`inference`] runs what was
//! trained, [`evaluation`] compares label maps and results, [`mod@bench`] measures, and [`cli`] is the command line.
//!
//! # How a step runs
//!
//! 1. A loader of [`data::dataset`] reads the region of a scan that a patch is made of and samples the numbers of its augmentation:
//!    a pure function of the key (seed, step, sample), whatever the number of threads. The voxels are transformed on the device,
//!    by the first nodes of the graph ([`compute::ops::augment`]); [`data::augment`] has the same on the CPU, as the reference.
//! 2. The [`Trainer`](training::trainer::Trainer) lets the task feed each micro-batch to the session. A masked autoencoder samples which
//!    blocks are hidden; the mask becomes a table from block to storage slot that every shader reads.
//! 3. [`compute::graph::Session`] runs the recorded graph: encoder over visible blocks, densification, dense decoder, squared error
//!    on hidden voxels, and the backward pass. Gradients of parameters are summed in place.
//! 4. After the last micro-batch, [`compute::ops::sgd`] clips the gradient and updates the weights.
//!
//! A batch is a loop over micro-batches: a graph holds as many samples along an axis as memory allows, one on a software adapter. Norms
//! and masks are those of each sample, so the numbers are the same. The samples of a [`VoxelLayout`](compute::graph::VoxelLayout)
//! follow one another, each under a mask of its own; kernels tell them apart by coordinates that no window bridges
//! (`shaders/shared/space.wgsl`). A task says by [`Task::has_micro_batches`](tasks::task::Task::has_micro_batches) that its graphs can
//! do so. Where a loss joins the samples of a batch (batch Dice, ignored voxels), the graph holds them all, along the axis or as
//! networks side by side.
//!
//! [`training::train_loop`] is the loop of every training: steps, validations, checkpoints, the log, stop signals. Pre-training
//! ([`training::pretrain`]) and fine-tuning ([`training::finetune`]) give it a task, a schedule ([`tasks::schedule`]) and batches. A
//! schedule has phases, which may freeze parts of the network; frozen parameters have no gradient nodes.
//!
//! # Handles
//!
//! Building a graph returns typed handles: [`Input`](compute::graph::Input) for what the host uploads,
//! [`Mask`](compute::graph::Mask) for a table of visible blocks, [`Flag`](compute::graph::Flag) for dispatches that the host turns
//! on, [`Feature`](compute::graph::Feature) and [`Readout`](compute::graph::Readout) for what it reads. A session is written and
//! read by handle; positions of tensors stay inside a graph. Operators work on [`TensorId`](compute::graph::TensorId)s.
//!
//! # How to add a task
//!
//! A pretext task is one file in `src/tasks/pretexts/`, its `pub mod`, and one line in the table [`tasks::pretexts::ALL`].
//! `src/tasks/pretexts/simmim.rs` is a short example of a task that hides blocks, `models_genesis.rs` of one that sees the whole patch.
//!
//! 1. A struct whose fields are the plan's tables of the task, with serde defaults. It implements
//!    [`Tables`](tasks::pretexts::Tables): key, name, tables, presets. The key has `_`, names of presets have `-`; `preset` gives the
//!    settings of a preset, small ones where it is `tiny`.
//! 2. A pretext that hides blocks and fills them in implements
//!    [`MaskedModelling`](tasks::pretexts::masked_modelling::MaskedModelling): the network, the loss and the settings of the blocks. All
//!    else follows. Any other pretext implements the traits of the next point itself.
//! 3. [`Pretext`](tasks::pretexts::Pretext): `check` refuses settings that make no sense; `patch_settings` says how patches are read.
//!    [`Task`](tasks::task::Task): `build` returns the graph for training or validation with a
//!    [`Binding`](tasks::task::Binding), which holds the handles, feeds samples, measures what a validation wants to know, and draws
//!    its picture. The methods of [`Graph`](compute::graph::Graph) are the operators. What becomes of an input before the network
//!    sees it is [`Graph::augment`](compute::graph::Graph::augment): turns, noise, blur, lower resolution and more, all off unless
//!    the uploaded numbers say otherwise; a target that differs from the input is augmented by itself and uploaded as well.
//!    Losses are sums over voxels, of which `loss_weight` makes a mean.
//! 4. Random numbers come from [`base::random::rng`] of the sample's key (seed, step, index) and a
//!    [`Purpose`](base::random::Purpose) of the task's own, and from nothing else: that is what makes runs resumable bit for bit.
//! 5. A test: the loss against a computation by hand, and a training that lowers it (`tests/simmim.rs`; the network alone is
//!    [`compute::model::predictor`]). `tests/support/mod.rs` lists the pretexts that the tests of all pretexts go through. The
//!    README has a table of pretexts for users.
//!
//! Presets may be none. The command line, checkpoints, resuming, experiments, memory planning and `--dry-run` need no change.
//!
//! # How to add an operator
//!
//! An operator is a folder `src/compute/ops/NAME/` (or one file where all fits into 200 lines) with the operator, its CPU reference
//! and its cases, and a folder `shaders/NAME/`, whose files are embedded without a list.
//!
//! 1. `use super::prelude::*` brings what an operator is written with. A method of [`Graph`](compute::graph::Graph) checks shapes,
//!    makes the output tensors (`feature_like` that of another's shape) and pushes a node.
//! 2. [`Op`](compute::graph::Op): `record` goes through the segments of tensors of one shape with `aligned` of `segments.rs`, and
//!    appends a dispatch for each by `each_voxel`, or by `each_chunk` for a reduction, with its operations and bytes for profiles
//!    (between tensors of different shapes, `Pair` of `pair.rs` does so: `avg_pool3d.rs`);
//!    `backward` appends the nodes of the gradient: `Graph::gradient` is that of an output, `Graph::saved` what the forward pass
//!    made, `Graph::gradient_target` says where to write and whether to add; nothing else need be asked, as `backward` is called
//!    where an input has a gradient (of several inputs, `needs_gradient` tells which). An operator without a gradient must say so.
//! 3. Binding 0 is the uniform, binding 1 the mask where the shader imports `space`, and the tensors follow. A voxel of a hidden block
//!    reads as zero, counts as zero, and gets no gradient. Branches on the uniform go through `is_set`. The shader writes zeros to the channels that fill up the last channel group, unless f(0) = 0 does; cases look there.
//!    `#import NAME` takes in `shaders/shared/NAME.wgsl`, of which `exists` tells those channels from the others, and
//!    `#import element` the type `Feature` of the graph's precision. `cargo test --release --test shaders` tells whether
//!    all shaders are valid, without a device; `read`, `write` and other words of WGSL are no names of functions.
//! 4. The uniform is declared with `shader_struct!`, which lists its shaders and brings the test that compares it with naga's layout.
//! 5. The reference is plain loops over `f64`. A case is a small graph around the operator: `SimpleCase` makes one of an operator
//!    with one input and one output, `Case::new` any other; `roundings` says how often a value is rounded to 16 bits on its way to
//!    a result. Inputs must be what features of 16 bits can hold (`stored` rounds them so), and in block-sparse cases the expected
//!    values and the gradient that comes in are multiplied by the mask of their own tensor. Add the operator to `ops/mod.rs` and its cases to [`compute::ops::cases`], which
//!    `cargo test --release --test ops every_operator`, `spark3d doctor` and `spark3d bench` share.
//!
//! `src/compute/ops/elementwise.rs` is a short example with gradients, `densify.rs` has block-sparse cases, and `masked_l2.rs` is a
//! loss. A variant is a value, an `override` constant of a shader or a field of the plan, never a subclass.
//!
//! # Voxel layouts
//!
//! A feature tensor is channels over a voxel layout ([`compute::graph::VoxelLayout`]): all voxels of a volume, or those of its visible
//! blocks only (block-sparse). The mask's cells are whole blocks at every stage, so one table serves all stages; dense is the layout
//! without a mask. Every kernel finds a neighbour through `find` of `shaders/shared/space.wgsl`, which answers NONE outside of the
//! volume and in hidden blocks: both read as zero, which is exactly the reference's multiplication by the mask. Channels are stored
//! in groups of four (`vec4`), group by group; channels that fill up the last group stay zero. Where a tensor exceeds the adapter's
//! binding limit it is divided into segments of whole groups, and a convolution sums over the segments of its input, as it does over
//! the inputs of a concatenation, which is never made.
//!
//! Feature tensors have 32 bits, or 16 where the graph's [`Precision`](compute::graph::Precision) says so: the alias `Feature` of the
//! shaders. Kernels compute in 32 bits either way, and whatever is not a feature (parameters, statistics, partial sums) is stored
//! so. Training with 16 bits scales the loss: [`training::loss_scale`].
//!
//! # Memory
//!
//! [`compute::graph::plan`] knows the first and last node of every tensor and places them in one arena, largest first. Gradients take
//! the place of what they replace. When a budget is given, [`training::memory`] lets the backward pass recompute cheap activations,
//! as few as fit. What is planned is what is allocated.
//!
//! # Kernel families
//!
//! A convolution has families of kernels, each with several tile configurations: direct (weights and inputs are read where they are
//! needed), staged and gathered (they wait in workgroup memory), reduced (invocations share the voxels of a weight gradient of few
//! channels), subgroup (the invocations of a subgroup hold weights and broadcast them), and two by cooperative matrices, with 16-bit
//! factors and 32-bit sums, the first choice of a GPU that has them for features of 16 bits: matrix stages the voxels that one tap
//! meets, and halo, for a stride of one, a box of voxels and those around it once for all taps. Where a matrix kernel has few voxels,
//! its sums are made in splits (`conv3d/splits`): more workgroups, each with fewer steps one after the other. Software adapters, where
//! arithmetic costs more than bytes, have a seventh for 3x3x3 taps and many channels: winograd transforms tiles of 2x2x2 voxels, some
//! at a time, so that 64 products stand for 216 (`shaders/shared/winograd.wgsl`). Forward, the gradient
//! of the input, strided or not, and the transposed convolution are the same sum over a window with other matrices,
//! `shaders/shared/pass.wgsl`, so that a kernel written once serves all of them. Some shaders are templates, because what is in
//! registers must be written out.
//!
//! An operator names its problem and the kernels that can solve it, the likely best first; [`compute::device::KernelTable`] may know
//! better. `spark3d bench --tune` fills that table: every candidate runs on the memory of a real session
//! ([`compute::graph::Session::tune`]), and the fastest is kept for the adapter and driver. Nothing is timed during a training:
//! kernels sum in different orders, and a run that is resumed must find the kernels that it started with.
//!
//! A kernel that is more than a plain pass over its tensors says with its dispatch what one workgroup costs
//! ([`compute::device::cost`]), in closed form from its tiles. [`bench::paper`] turns that into the time of a step on an adapter
//! that is not there, from a session that is planned and recorded without a device ([`compute::graph::SessionPlan`]).
//!
//! # Devices
//!
//! [`compute::device::Gpu`] is a device to everyone; behind it stands a [`compute::device::Backend`]: the engine of wgpu, or in tests
//! an interpreter of shaders (`tests/interpreter`, `tests/kernels.rs`) or a driver with faults (`tests/driver_faults.rs`). What compilers of
//! drivers and browsers make of the shaders is looked at without any device (`tests/compilers`).
//!
//! What the engine gives to a GPU at once is bounded by a [`compute::device::Budget`] of estimated time, since operating systems
//! reset a GPU that does not answer: a long dispatch runs in parts, whose shader is told where a part begins in the whole, and a
//! submission is closed in time. Estimates follow from the adapter's measured [`compute::device::Speed`] and from how long runs took.
//! No number depends on them. Submissions leave marks, which are checked with every readback, and waiting ends after minutes without
//! progress. A step waits once; uploads and readbacks go through memory that is made once.
//!
//! Before a session is used, each family of kernels that it runs is compared with the direct kernels on the session's own memory;
//! one that is wrong is set aside. Kernels with cooperative matrices reach Vulkan as SPIR-V that is written here
//! ([`compute::device::spirv`]), whose accesses to workgroup memory are ordered by barriers. Workgroups are as wide as the largest
//! subgroups need; subgroups beyond those that a kernel needs stage and multiply nothing.
//!
//! # Large collections
//!
//! [`data::preprocess::run`](data::preprocess::run()) turns tens of thousands of scans into a store ([`data::store`]): a case is one
//! sharded array, and all of them are in one manifest, which is all that opening a store reads. What is done is kept in a journal
//! until the manifest takes its place, so that preprocessing resumes after a kill or a full disk, and several machines can share the
//! work. Names of cases and the order of bytes depend on the list of scans alone, so that the store is the same, bit for bit,
//! however it came about.
//!
//! # Models and experiments
//!
//! The run folder of a fine-tuning is a model folder of nnU-Net's layout: `plans.json` and `dataset.json` describe the model;
//! [`inference::weights`] reads its checkpoints and those of nnU-Net and nnssl alike; [`inference::predict`] slides the network over
//! a scan, slab by slab, so that the logits of a whole scan are never in memory. [`data::planning`] decides by nnU-Net's rules which
//! voxel size, patch and network suit a data set.
//!
//! [`training::experiment`] turns a file into jobs, pre-trainings and fine-tunings, whose keys are hashes of all that makes their
//! results, and does those that are missing. [`evaluation::results`] keeps scores, curves and plans in one SQLite file;
//! [`evaluation::compare`] makes tables, ranks and tests of them, and of the paper's own numbers with the same functions.
//!
//! # What is absent
//!
//! - `wgpu` outside of [`compute::device`]; printing and exiting outside of the command line and [`base::progress`].
//! - Atomics on floats, and any other sum whose order varies: the same adapter, driver and plan give the same bits.
//! - A stream of random numbers: every sample is keyed ([`base::random`]), so a resumed run cannot tell that it was stopped.
//! - Knowledge of the data side in the compute side, and the reverse.
//!
//! # Who may use whom
//!
//! Twelve entries in `src/`, each with one purpose. `tests/layering.rs` holds the code to this table, and refuses cycles between
//! folders at any depth.
//!
//! | module | may use | purpose |
//! |---|---|---|
//! | base | | what every other module may use: errors, random numbers by key, volumes, files that appear whole, locks, hashes |
//! | formats | base | files of other programs: NIfTI, nnU-Net's folders, PyTorch's checkpoints |
//! | data | base, formats | the data side: from scans to a store, from the store to patches |
//! | compute | base | the compute side: the device, static graphs, operators, networks |
//! | evaluation | base, formats | scores of label maps, results of many runs, their comparison, pictures |
//! | tasks | base, data, compute, evaluation | what a network is trained for, and the plans that say so |
//! | inference | base, formats, data, compute, evaluation, tasks | what is done with a trained network: reading weights, predicting, reconstructing, converting |
//! | training | base, formats, data, compute, evaluation, tasks, inference | the training loop, pre-training, fine-tuning, experiments |
//! | bench | base, data, compute, tasks, training | timing, the adapter's roofline, and estimates for adapters that are not there |
//! | cli | * | the command line |
//!
//! `lib.rs` is this page, `main.rs` the program.

#![warn(missing_docs)]

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
