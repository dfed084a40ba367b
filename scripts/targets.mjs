// The platforms that prebuilds are made for: where node-gyp-build looks for each, and what zig and CMake call it.
export const targets = [
  {
    name: 'linux-x64-glibc',
    path: 'prebuilds/linux-x64/drover.glibc.node',
    triple: 'x86_64-linux-gnu.2.28',
    cmake: ['Linux', 'x86_64'],
  },
  {
    name: 'linux-x64-musl',
    path: 'prebuilds/linux-x64/drover.musl.node',
    triple: 'x86_64-linux-musl',
    cmake: ['Linux', 'x86_64'],
  },
  {
    name: 'linux-arm64-glibc',
    path: 'prebuilds/linux-arm64/drover.glibc.node',
    triple: 'aarch64-linux-gnu.2.28',
    cmake: ['Linux', 'aarch64'],
  },
  {
    name: 'linux-arm64-musl',
    path: 'prebuilds/linux-arm64/drover.musl.node',
    triple: 'aarch64-linux-musl',
    cmake: ['Linux', 'aarch64'],
  },
  {
    name: 'win32-x64',
    path: 'prebuilds/win32-x64/drover.node',
    triple: 'x86_64-windows-gnu',
    cmake: ['Windows', 'AMD64'],
  },
  {
    name: 'darwin-x64',
    path: 'prebuilds/darwin-x64/drover.node',
    triple: 'x86_64-macos.11.0',
    cmake: ['Darwin', 'x86_64'],
  },
  {
    name: 'darwin-arm64',
    path: 'prebuilds/darwin-arm64/drover.node',
    triple: 'aarch64-macos.11.0',
    cmake: ['Darwin', 'arm64'],
  },
]
