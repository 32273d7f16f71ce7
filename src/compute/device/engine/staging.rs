//! Memory between host and device that is made once and used again: a ring of chunks for uploads, and buffers for readbacks.

use super::Engine;
use crate::base::{Error, Result};
use crate::compute::device::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use wgpu::BufferUsages;

/// Bytes of a chunk of the upload ring, and the most chunks: uploads beyond wait for the first to come back. What a sample of a
/// step uploads fits, so that it need not wait for the sample before.
const CHUNK: u64 = 8 << 20;
const MOST_CHUNKS: usize = 32;
/// Places in a chunk are multiples of this.
const ALIGNMENT: u64 = 16;
/// Bytes that one readback stages at most, and at least: a step's results fit into the least.
const LARGEST_READBACK: u64 = 64 << 20;
const SMALLEST_READBACK: u64 = 64 << 10;

/// Uploads on their way, and what they are copied through.
#[derive(Default)]
pub(super) struct Uploads {
    /// Mapped chunks that nobody uses.
    free: Arc<Mutex<Vec<wgpu::Buffer>>>,
    made: usize,
    /// The chunk that is being filled, and its bytes in use.
    current: Option<(wgpu::Buffer, u64)>,
    /// Full chunks that the commands at hand copy from.
    full: Vec<wgpu::Buffer>,
    /// Copies and clears since the last submission, in order.
    encoder: Option<wgpu::CommandEncoder>,
}

/// Readback buffers that nobody uses.
#[derive(Default)]
pub(super) struct Readbacks(Vec<wgpu::Buffer>);

impl Engine {
    /// Appends commands to those that go before the next submission.
    pub(super) fn queue_command(&self, uploads: &mut Uploads, command: impl FnOnce(&mut wgpu::CommandEncoder)) {
        command(uploads.encoder.get_or_insert_with(|| self.device.create_command_encoder(&Default::default())));
    }

    /// Queues a write. What is lost with the device is reported by whoever waits for it.
    pub(super) fn upload(&self, target: &wgpu::Buffer, mut offset: u64, mut bytes: &[u8]) {
        let mut uploads = self.uploads.lock().unwrap_or_else(|e| e.into_inner());
        while !bytes.is_empty() {
            let Some((chunk, used)) = self.chunk(&mut uploads) else { return };
            let count = (CHUNK - used).min(bytes.len() as u64);
            let (now, rest) = bytes.split_at(count as usize);
            match chunk.get_mapped_range_mut(used..used + count) {
                Ok(mut view) => view.copy_from_slice(now),
                Err(_) => return,
            }
            self.queue_command(&mut uploads, |e| e.copy_buffer_to_buffer(&chunk, used, target, offset, count));
            uploads.current = Some((chunk, used + count.next_multiple_of(ALIGNMENT)));
            (bytes, offset) = (rest, offset + count);
        }
    }

    /// The chunk to fill, and from where on; none where the device is lost.
    fn chunk(&self, uploads: &mut Uploads) -> Option<(wgpu::Buffer, u64)> {
        match uploads.current.take() {
            Some((chunk, used)) if used < CHUNK => return Some((chunk, used)),
            Some((chunk, _)) => uploads.full.push(chunk),
            None => {}
        }
        let free = |uploads: &Uploads| uploads.free.lock().unwrap_or_else(|e| e.into_inner()).pop();
        if let Some(chunk) = free(uploads) {
            return Some((chunk, 0));
        }
        if uploads.made < MOST_CHUNKS {
            uploads.made += 1;
            self.staging.fetch_add(CHUNK, Ordering::Relaxed);
            let usage = BufferUsages::MAP_WRITE | BufferUsages::COPY_SRC;
            let descriptor =
                wgpu::BufferDescriptor { label: Some("upload"), size: CHUNK, usage, mapped_at_creation: true };
            return Some((self.device.create_buffer(&descriptor), 0));
        }
        // All are on their way.
        let encoder = self.take_uploads(uploads);
        self.submit(encoder.unwrap_or_else(|| self.device.create_command_encoder(&Default::default())), "upload", 0.0);
        self.return_chunks(uploads);
        self.wait_for_all().ok()?;
        Some((free(uploads)?, 0))
    }

    /// The commands at hand, to be submitted; their chunks come back after [`Engine::return_chunks`].
    pub(super) fn take_uploads(&self, uploads: &mut Uploads) -> Option<wgpu::CommandEncoder> {
        let encoder = uploads.encoder.take()?;
        uploads.full.extend(uploads.current.take().map(|(chunk, _)| chunk));
        uploads.full.iter().for_each(wgpu::Buffer::unmap);
        Some(encoder)
    }

    /// Lets the chunks of what was just submitted come back when the device has read them.
    pub(super) fn return_chunks(&self, uploads: &mut Uploads) {
        for chunk in uploads.full.drain(..) {
            let (free, returned) = (uploads.free.clone(), chunk.clone());
            chunk.slice(..).map_async(wgpu::MapMode::Write, move |mapped| {
                if mapped.is_ok() {
                    free.lock().unwrap_or_else(|e| e.into_inner()).push(returned);
                }
            });
        }
    }

    /// Waits for all work and returns the bytes of the ranges; with each part of them, the marks of all submissions so far.
    pub(super) fn readback(&self, ranges: &[Range]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut parts: Vec<Vec<Range>> = vec![Vec::new()];
        let mut room = LARGEST_READBACK;
        for &(buffer, mut offset, mut size) in ranges {
            while size > 0 {
                if room == 0 {
                    parts.push(Vec::new());
                    room = LARGEST_READBACK;
                }
                let now = size.min(room);
                parts.last_mut().expect("there is one").push((buffer, offset, now));
                (offset, size, room) = (offset + now, size - now, room - now);
            }
        }
        for part in parts {
            self.read_part(&part, &mut out)?;
        }
        Ok(out)
    }

    fn read_part(&self, ranges: &[Range], out: &mut Vec<u8>) -> Result<()> {
        let size: u64 = ranges.iter().map(|r| r.2).sum();
        let staging = self.readback_buffer(size + self.marks.size());
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut at = 0;
        for &(buffer, offset, size) in ranges {
            self.with_buffer(buffer, |source| encoder.copy_buffer_to_buffer(source, offset, &staging, at, size));
            at += size;
        }
        self.marks.append_to(&mut encoder, &staging, size);
        self.submit(encoder, "readback", 0.0);
        staging.slice(..).map_async(wgpu::MapMode::Read, |_| ());
        self.wait_for_all()?;
        let failed = |e| Error::device(format!("readback failed: {e}"), "Run the same command again");
        let view = staging.slice(..).get_mapped_range().map_err(failed)?;
        out.extend_from_slice(&view[..size as usize]);
        let marks = self.marks.check(&view[size as usize..]);
        drop(view);
        staging.unmap();
        self.readbacks.lock().unwrap_or_else(|e| e.into_inner()).0.push(staging);
        marks.map_err(|what| self.vanished(&what))
    }

    /// A readback buffer of at least `size` bytes: the smallest that is free, or a new one.
    fn readback_buffer(&self, size: u64) -> wgpu::Buffer {
        let mut readbacks = self.readbacks.lock().unwrap_or_else(|e| e.into_inner());
        let large_enough = readbacks.0.iter().enumerate().filter(|(_, b)| b.size() >= size);
        if let Some((at, _)) = large_enough.min_by_key(|(_, b)| b.size()) {
            return readbacks.0.swap_remove(at);
        }
        let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
        let size = size.max(SMALLEST_READBACK).next_power_of_two();
        self.staging.fetch_add(size, Ordering::Relaxed);
        self.new_buffer(Some("readback"), size, usage)
    }
}
