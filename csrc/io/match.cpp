#include "io/match.h"

#include <algorithm>
#include <optional>
#include <set>
#include <unordered_map>

#include "core/check.h"
#include "io/task_names.h"

namespace vpd::io {
namespace {

// Fewer names than this (say "weight" and "bias") would fit a file in too many places by chance.
constexpr size_t kMinMoved = 4;
// How many names of a group propose prefixes; every proposal is then judged by all names.
constexpr size_t kProposers = 8;

bool same_shape(const Entry& a, const Entry& b, bool across_layouts) {
  if (a.shape == b.shape) return true;
  const auto& [narrow, wide] =
      a.shape.size() < b.shape.size() ? std::tie(a.shape, b.shape) : std::tie(b.shape, a.shape);
  return across_layouts && narrow.size() == 2 && wide.size() == 4 && wide[2] == 1 && wide[3] == 1 &&
         std::equal(narrow.begin(), narrow.end(), wide.begin());
}

std::string first_part(std::string_view name) {
  const size_t dot = name.find('.');
  return dot == name.npos ? "" : std::string(name.substr(0, dot + 1));
}

// The names outside networks, each file's and module's brought to the same.
std::vector<std::string> task_names(const Entries& entries) {
  const TaskNames own(entries);
  std::vector<std::string> names;
  for (const Entry& entry : entries) names.push_back(own(entry.name));
  return names;
}

class Matcher {
 public:
  Matcher(const Entries& file, const Entries& module, const std::string& path)
      : file_(file),
        module_(module),
        path_(path),
        file_networks_(find_networks(file)),
        module_networks_(find_networks(module)),
        file_names_(task_names(file)),
        module_names_(task_names(module)),
        used_(file.size(), false),
        claimed_(file.size(), false),
        done_(module.size(), false) {
    match_.layout = detect_layout(file, file_networks_);
  }

  Match run() {
    for (const Network& network : module_networks_) place_network(network);
    for (const auto& [network, parts] : placed_) report_unused(*network, parts);
    place_by_name();
    for (size_t i = 0; i < module_.size(); ++i) {
      if (!done_[i] && leaves_out(match_.layout, module_names_[i])) set_absent(i);
      if (!done_[i] && !is_ignorable(module_[i].name)) match_.missing.push_back(module_[i].name);
    }
    report_unused_rest();
    return std::move(match_);
  }

 private:
  void pair(size_t in_module, size_t in_file, bool across_layouts) {
    done_[in_module] = used_[in_file] = true;
    const Entry& expected = module_[in_module];
    const Entry& got = file_[in_file];
    if (same_shape(expected, got, across_layouts)) {
      match_.pairs.emplace_back(expected.name, got.name);
    } else {
      match_.mismatched.push_back({expected.name, expected.shape, got.shape});
    }
  }

  const Network* find_in_file(const Network& wanted) const {
    std::vector<const Network*> found;
    std::string prefixes;
    for (const Network& network : file_networks_) {
      if (network.kind != wanted.kind) continue;
      if (network.prefix == wanted.prefix) return &network;
      found.push_back(&network);
      prefixes += " '" + network.prefix + "'";
    }
    VPD_CHECK(found.size() <= 1, path_, ": expected one ", to_string(wanted.kind),
              " network, got several, below the prefixes", prefixes);
    return found.empty() ? nullptr : found.front();
  }

  // What official checkpoints leave out is no mistake of theirs.
  void set_absent(size_t position) {
    if (is_ignorable(module_[position].name)) return;
    done_[position] = true;
    match_.absent.push_back(module_[position].name);
  }

  void place_network(const Network& network) {
    const Network* source = find_in_file(network);
    if (source == nullptr) {
      if (!leaves_out(match_.layout, network.kind)) return;
      for (const auto& [position, name] : network.names) set_absent(position);
      return;
    }
    std::unordered_map<std::string_view, size_t> positions;
    for (const auto& [position, name] : source->names) {
      positions.emplace(name, position);
      claimed_[position] = true;
    }
    const bool across = source->naming != network.naming;
    std::set<std::string>& parts = placed_[source];
    for (const auto& [position, name] : network.names) {
      parts.insert(first_part(name));
      const auto found = positions.find(name);
      if (found != positions.end()) {
        pair(position, found->second, across);
      } else if (match_.layout.starts_with("vpd-") && source->kind == NetworkKind::kUNet &&
                 name.starts_with("out.")) {
        set_absent(position);
      }
    }
  }

  // An encoder without its decoder, or a tower without its projection, leaves those alone.
  void report_unused(const Network& network, const std::set<std::string>& parts) {
    const bool optional_parts = network.kind != NetworkKind::kUNet;
    for (const auto& [position, name] : network.names) {
      if (used_[position] || is_ignorable(file_[position].name)) continue;
      if (optional_parts && !parts.contains(first_part(name))) continue;
      match_.unexpected.push_back(file_[position].name);
    }
  }

  void place_by_name() {
    for (size_t i = 0; i < file_.size(); ++i) {
      if (!claimed_[i]) free_.emplace(file_names_[i], i);
    }
    std::vector<size_t> open;
    for (size_t i = 0; i < module_.size(); ++i) {
      if (done_[i]) continue;
      const auto found = free_.find(module_names_[i]);
      if (found == free_.end()) {
        open.push_back(i);
        continue;
      }
      pair(i, found->second, false);
      prefixes_.insert(first_part(module_names_[i]));
    }
    if (place_moved(open, "")) return;
    std::map<std::string, std::vector<size_t>> groups;
    for (const size_t i : open) groups[first_part(module_names_[i])].push_back(i);
    for (const auto& [prefix, members] : groups) place_moved(members, prefix);
  }

  // Matches a group of parameters, named below `prefix`, to the one place in the file that has all
  // their names.
  bool place_moved(const std::vector<size_t>& members, const std::string& prefix) {
    if (members.size() < kMinMoved) return false;
    const auto rest = [&](size_t i) {
      return std::string_view(module_names_[i]).substr(prefix.size());
    };
    std::set<std::string> proposals;
    for (size_t k = 0; k < std::min(kProposers, members.size()); ++k) {
      for (const auto& [name, position] : free_) {
        if (!name.ends_with(rest(members[k]))) continue;
        const std::string proposal = name.substr(0, name.size() - rest(members[k]).size());
        if (proposal.empty() || proposal.back() == '.') proposals.insert(proposal);
      }
    }
    std::optional<std::string> best;
    size_t best_score = 0;
    bool tied = false;
    for (const std::string& proposal : proposals) {
      size_t score = 0;  // names found, and once more if the shape fits
      size_t found_names = 0;
      for (const size_t i : members) {
        const auto found = free_.find(proposal + std::string(rest(i)));
        if (found == free_.end() || used_[found->second]) continue;
        ++found_names;
        score += 1 + same_shape(module_[i], file_[found->second], false);
      }
      if (found_names != members.size() || score < best_score) continue;
      tied = score == best_score;
      best_score = score;
      best = proposal;
    }
    if (!best || tied) return false;
    for (const size_t i : members) pair(i, free_.at(*best + std::string(rest(i))), false);
    if (!best->empty()) prefixes_.insert(*best);
    return true;
  }

  void report_unused_rest() {
    const std::set<std::string> single = {"ldm-unet",      "ldm-vae",   "diffusers-unet",
                                          "diffusers-vae", "clip-text", "clip-vision",
                                          "unknown"};
    const bool all = single.contains(match_.layout);
    std::vector<bool> in_network(file_.size(), false);
    for (const Network& network : file_networks_) {
      for (const auto& [position, name] : network.names) in_network[position] = true;
    }
    for (size_t i = 0; i < file_.size(); ++i) {
      if (used_[i] || claimed_[i] || is_ignorable(file_[i].name)) continue;
      const std::string& name = file_names_[i];
      const bool below = !in_network[i] &&
                         std::any_of(prefixes_.begin(), prefixes_.end(), [&](const auto& prefix) {
                           return !prefix.empty() && name.starts_with(prefix);
                         });
      if (all || below) match_.unexpected.push_back(file_[i].name);
    }
  }

  const Entries& file_;
  const Entries& module_;
  const std::string& path_;
  std::vector<Network> file_networks_;
  std::vector<Network> module_networks_;
  std::vector<std::string> file_names_;  // as TaskNames has them
  std::vector<std::string> module_names_;
  std::vector<bool> used_;     // of the file: goes to a parameter
  std::vector<bool> claimed_;  // of the file: belongs to a network that the module has
  std::vector<bool> done_;     // of the module
  std::map<const Network*, std::set<std::string>>
      placed_;                          // network of the file -> parts the module has
  std::map<std::string, size_t> free_;  // names of the file outside those networks
  std::set<std::string> prefixes_;      // of the file, that such names were found below
  Match match_;
};

std::string conversion_prefix(NetworkKind kind, Naming to, bool alone, std::string_view name) {
  const bool original = to == Naming::kOriginal;
  switch (kind) {
    case NetworkKind::kUNet:
      return alone ? "" : original ? "model.diffusion_model." : "unet.";
    case NetworkKind::kVAE:
      return alone ? "" : original ? "first_stage_model." : "vae.";
    default:
      break;
  }
  const std::string outer = alone      ? ""
                            : original ? "cond_stage_model.transformer."
                                       : "text_encoder.";
  return name == "text_projection.weight" ? outer : outer + "text_model.";
}

}  // namespace

Match match_weights(const Entries& file, const Entries& module, const std::string& path) {
  refuse_other_models(file, path);
  return Matcher(file, module, path).run();
}

std::vector<Renaming> plan_conversion(const Entries& file, Naming to, const std::string& path) {
  refuse_other_models(file, path);
  const std::vector<Network> networks = find_networks(file);
  std::vector<bool> covered(file.size(), false);
  std::set<NetworkKind> kinds;
  std::vector<Renaming> plan;
  for (const Network& network : networks) {
    VPD_CHECK(
        network.kind != NetworkKind::kCLIPVision && kinds.insert(network.kind).second, path,
        ": conversion takes at most one U-Net, one autoencoder and one text encoder, got another ",
        to_string(network.kind), " network below '", network.prefix, "'");
    std::vector<size_t> positions;
    std::vector<std::string> originals;
    for (const auto& [position, name] : network.names) {
      covered[position] = true;
      if (is_ignorable(file[position].name)) continue;
      positions.push_back(position);
      originals.push_back(name);
    }
    const NewNames names = to == Naming::kDiffusers ? to_diffusers(network.kind, originals)
                                                    : NewNames(originals.begin(), originals.end());
    for (size_t k = 0; k < positions.size(); ++k) {
      const Entry& entry = file[positions[k]];
      VPD_CHECK(names[k], path, ": tensor '", entry.name, "' has no name in the other layout");
      plan.push_back(
          {positions[k],
           conversion_prefix(network.kind, to, networks.size() == 1, *names[k]) + *names[k],
           shape_in(to, network.kind, originals[k], entry.shape)});
    }
  }
  for (size_t i = 0; i < file.size(); ++i) {
    VPD_CHECK(covered[i] || is_ignorable(file[i].name), path, ": tensor '", file[i].name,
              "' belongs to no U-Net, autoencoder or text encoder; only these can be converted");
  }
  VPD_CHECK(!plan.empty(), path, ": expected a U-Net, autoencoder or text encoder, found none");
  return plan;
}

}  // namespace vpd::io
