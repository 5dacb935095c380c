package inventory

// gpuScript is the part of the scripts that prints what is known about GPUs. Each section
// begins with a line "@@ name"; the exit code of a tool follows in a section of its own.
// The last properties of the first query are unknown to drivers before 450 (MIG) and 495
// (compute capability), which then refuse all of it. Tools of AMD are slow and optional:
// the kernel's own files have everything except the names of some models.
const gpuScript = `
export LC_ALL=C
PATH="$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/rocm/bin"
section() { printf "\n@@ %s\n" "$1"; }
limit() {
  if command -v timeout >/dev/null 2>&1; then timeout 20 "$@" </dev/null 2>&1; else "$@" </dev/null 2>&1; fi
  code=$?
  section exit
  echo $code
  return $code
}
smi() { section nvidia; limit nvidia-smi "--query-gpu=index,uuid,name,memory.total,driver_version$1" --format=csv,noheader,nounits; }
refused() { [ $code = 2 ] || [ $code = 6 ]; }
if command -v nvidia-smi >/dev/null 2>&1; then
  smi ,compute_cap,mig.mode.current || { refused && smi ,compute_cap; } || { refused && smi; }
fi
if command -v nvidia-ctk >/dev/null 2>&1 || command -v nvidia-container-runtime-hook >/dev/null 2>&1; then
  section toolkit
  echo yes
fi
if command -v amd-smi >/dev/null 2>&1; then
  section amd
  limit amd-smi static --asic --bus --vram --driver --json
elif command -v rocm-smi >/dev/null 2>&1; then
  section rocm
  limit rocm-smi --showproductname --showmeminfo vram --showbus --showdriverversion --json
fi
section amdgpu
cat /sys/module/amdgpu/version 2>/dev/null
section pci
for d in /sys/bus/pci/devices/*; do
  read -r class <"$d/class" || continue
  case $class in 0x03*) ;; *) continue ;; esac
  driver=none
  [ -e "$d/driver" ] && driver=$(readlink "$d/driver")
  vram=0
  [ -r "$d/mem_info_vram_total" ] && read -r vram <"$d/mem_info_vram_total"
  node=none
  for n in "$d"/drm/renderD*; do [ -e "$n" ] && node=${n##*/}; done
  read -r vendor <"$d/vendor"
  read -r device <"$d/device"
  echo "${d##*/} $vendor $device ${driver##*/} $vram $node"
done 2>/dev/null
`

// GPUScript is a script for sh that prints the GPUs of a machine, for ParseGPUs. It needs
// no rights, and at most a minute.
const GPUScript = gpuScript

// Script is a script for sh that prints what a machine has, for Parse. $1 is the folder
// whose file system counts as the machine's disk. It needs no rights, and at most a minute.
const Script = gpuScript + `
section cpus
nproc 2>/dev/null || grep -c "^processor" /proc/cpuinfo
section arch
uname -m
section memory
cat /proc/meminfo
section system
cat /etc/os-release
section machine
cat /etc/machine-id /proc/sys/kernel/random/boot_id 2>/dev/null
section disk
df -Pk "${1:-/}" 2>/dev/null || df -Pk /
section end
`
