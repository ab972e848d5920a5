# The lock without PyTorch and what only its CUDA build needs; a requirement goes with the lines of its hashes.
/^[a-z]/ { keep = $0 !~ /^(torch|torchvision|triton|cuda-|nvidia-)/ }
keep
