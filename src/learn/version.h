// Version of LibTorch that this program was built with, so that whoever reports it need not include LibTorch.
#pragma once

namespace calm {

const char* torch_version();

}  // namespace calm
