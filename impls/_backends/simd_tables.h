// Polynomials about centres, for Pieces of simd_math-inl.h: the centres, the values there, the further coefficients, lowest first.
// Fitted to mpmath's functions, minimax and relative to the function (to the card's scale beside a zero), rounded one after
// the other; what is left of the error, before rounding, stands beside each.
#pragma once
#include <stddef.h>

namespace ulproof {

// Centres stand about 1/kPerUnit apart.
template <size_t kEntries>
struct PiecesOf;
template <>
struct PiecesOf<16> {
  static constexpr size_t kDegree = 6;
  static constexpr float kPerUnit = 4.0f;
  alignas(64) float entry[kDegree + 2][16];
};
template <>
struct PiecesOf<8> {
  static constexpr size_t kDegree = 8;
  static constexpr float kPerUnit = 0x1.ef7bep+0f;
  alignas(64) float entry[kDegree + 2][8];
};

// 2^-27.9
inline constexpr PiecesOf<16> kGelu16 = {{
    {0.0f, 0x1.001bp-2f, 0x1.0017p-1f, 0x1.7ffb8p-1f, 0x1.fff8p-1f, 0x1.3ffbp+0f, 0x1.800dp+0f, 0x1.bff9p+0f, 0x1.000dp+1f,
     0x1.2007p+1f, 0x1.3fe58p+1f, 0x1.60098p+1f, 0x1.80128p+1f, 0x1.a001p+1f, 0x1.c00c8p+1f, 0x1.e0018p+1f},
    {0x1.p-1f, 0x1.9ae24ap-2f, 0x1.3be112p-2f, 0x1.d0276cp-3f, 0x1.44f4cap-3f, 0x1.b0cc6ep-4f, 0x1.11897ep-4f,
     0x1.483d78p-5f, 0x1.74632ap-6f, 0x1.905972p-7f, 0x1.97e2f6p-8f, 0x1.8637d6p-9f, 0x1.61365ap-10f, 0x1.2e7eaep-11f,
     0x1.e7292ep-13f, 0x1.72c802p-14f},
    {-0x1.988454p-2f, -0x1.8bf01ep-2f, -0x1.687bb6p-2f, -0x1.345f68p-2f, -0x1.ef9618p-3f, -0x1.7619dcp-3f, -0x1.092c52p-3f,
     -0x1.61753cp-4f, -0x1.b9f172p-5f, -0x1.03e2e2p-5f, -0x1.1fc3cap-6f, -0x1.29bd88p-7f, -0x1.21f43cp-8f, -0x1.09eccep-9f,
     -0x1.c8ed34p-11f, -0x1.71a8fp-12f},
    {0x1.5252c4p-20f, 0x1.8c19d8p-5f, 0x1.689be4p-4f, 0x1.ce89bp-4f, 0x1.ef8e6p-4f, 0x1.d39908p-4f, 0x1.8dcffcp-4f,
     0x1.3541cap-4f, 0x1.ba07e6p-5f, 0x1.246658p-5f, 0x1.6796f6p-6f, 0x1.996fa6p-7f, 0x1.b30354p-8f, 0x1.b021d6p-9f,
     0x1.8fdab6p-10f, 0x1.5a8f72p-11f},
    {0x1.102856p-4f, 0x1.eee6b4p-5f, 0x1.685ecp-5f, 0x1.67da1p-6f, 0x1.c18976p-18f, -0x1.187458p-6f, -0x1.ba259ep-6f,
     -0x1.e5eda2p-6f, -0x1.ba2f54p-6f, -0x1.60057ap-6f, -0x1.f732acp-7f, -0x1.45bc94p-7f, -0x1.82c5e2p-8f, -0x1.a7d334p-9f,
     -0x1.ac77c8p-10f, -0x1.9265fap-11f},
    {0x1.7bbac4p-11f, -0x1.83ca94p-7f, -0x1.4a0c18p-6f, -0x1.77d9dp-6f, -0x1.4a786p-6f, -0x1.c0496ap-7f, -0x1.8deae8p-8f,
     0x1.956d5cp-12f, 0x1.272792p-8f, 0x1.9251a6p-8f, 0x1.8506eap-8f, 0x1.37786ep-8f, 0x1.b33f0ep-9f, 0x1.105762p-9f,
     0x1.344ddcp-10f, 0x1.3f81fp-11f},
    {-0x1.f27bccp-7f, -0x1.16312p-7f, -0x1.201b16p-8f, 0x1.cc2414p-17f, 0x1.0184e2p-8f, 0x1.822baep-8f, 0x1.7c28dp-8f,
     0x1.1cc6fap-8f, 0x1.29e6fep-9f, 0x1.020da8p-11f, -0x1.5bdbb8p-11f, -0x1.23f556p-10f, -0x1.212d3p-10f, -0x1.c606e4p-11f,
     -0x1.2f943ap-11f, -0x1.674fcp-12f},
    {0x1.d47da6p-7f, 0x1.ee12f2p-10f, 0x1.f64e2ep-10f, 0x1.9cf2cap-9f, 0x1.23bb9ap-9f, 0x1.82e7b4p-11f, -0x1.9c15a4p-12f,
     -0x1.353cp-10f, -0x1.64aa3ap-10f, -0x1.13f788p-10f, -0x1.fc99dp-12f, -0x1.19bc64p-13f, 0x1.d6032cp-14f,
     0x1.925cc4p-13f, 0x1.7c8ddep-13f, 0x1.138b04p-13f},
}};
// 2^-28.1
inline constexpr PiecesOf<8> kGelu8 = {{
    {0.0f, 0x1.088888p-1f, 0x1.089708p+0f, 0x1.8cb2ccp+0f, 0x1.089a88p+1f, 0x1.59f9e4p+1f, 0x1.9707aap+1f, 0x1.cca95ap+1f},
    {0x1.p-1f, 0x1.35f588p-2f, 0x1.3493a4p-3f, 0x1.f095fap-5f, 0x1.3d24cp-6f, 0x1.c26ce2p-9f, 0x1.822d6ep-11f, 0x1.4f10dap-13f},
    {-0x1.988454p-2f, -0x1.657934p-2f, -0x1.deef2p-3f, -0x1.ebdbf6p-4f, -0x1.81c954p-5f, -0x1.52c5eep-7f, -0x1.4d282ap-9f,
     -0x1.421082p-11f},
    {0x1.23863p-20f, 0x1.7163bp-4f, 0x1.ef012ep-4f, 0x1.7d17ep-4f, 0x1.8ec07ap-5f, 0x1.c9d76ep-7f, 0x1.08da6ap-8f,
     0x1.21c55cp-10f},
    {0x1.10332ap-4f, 0x1.5d68acp-5f, -0x1.5c7c82p-9f, -0x1.cb7d2ep-6f, -0x1.a4f21cp-6f, -0x1.640b44p-7f, -0x1.f9f2cep-9f,
     -0x1.40c83ap-10f},
    {0x1.1ea13cp-11f, -0x1.5094ccp-6f, -0x1.3ec858p-6f, -0x1.3026ecp-8f, 0x1.529188p-8f, 0x1.48913cp-8f, 0x1.39ef3cp-9f,
     0x1.e0a4d4p-11f},
    {-0x1.db5ce6p-7f, -0x1.1aef54p-8f, 0x1.202c94p-8f, 0x1.72724p-8f, 0x1.c43936p-10f, -0x1.1b239p-10f, -0x1.ef1914p-11f,
     -0x1.f36c6ep-12f},
    {0x1.530338p-6f, 0x1.a30d7cp-9f, 0x1.efb17ep-10f, -0x1.c70488p-11f, -0x1.55daa8p-10f, -0x1.7ac4bap-13f, 0x1.7c0f54p-13f,
     0x1.56d476p-13f},
    {-0x1.87aad4p-5f, 0x1.4b7e62p-11f, -0x1.36eae6p-11f, -0x1.1e641ep-11f, 0x1.d8bae4p-14f, 0x1.a3cf72p-13f, 0x1.05228cp-15f,
     -0x1.cac856p-16f},
    {0x1.80ff42p-5f, -0x1.0dd03ap-10f, -0x1.1ab35p-11f, 0x1.a43bbcp-12f, 0x1.1f2166p-12f, -0x1.6f01aap-15f, -0x1.194242p-15f,
     -0x1.80b132p-18f},
}};
// 2^-26.8
inline constexpr PiecesOf<16> kGeluSlope16 = {{
    {0.0f, 0x1.ffffp-3f, 0x1.0006p-1f, 0x1.8004p-1f, 0x1.fffp-1f, 0x1.3fe5p+0f, 0x1.8012p+0f, 0x1.bff58p+0f, 0x1.001p+1f,
     0x1.1ff78p+1f, 0x1.3febp+1f, 0x1.60018p+1f, 0x1.7ffdp+1f, 0x1.a015p+1f, 0x1.c0198p+1f, 0x1.e00fp+1f},
    {0x1.p-1f, 0x1.37f06cp-2f, 0x1.0f4feep-3f, 0x1.8f04d2p-11f, -0x1.5523ap-4f, -0x1.f6496cp-4f, -0x1.0509e6p-3f,
     -0x1.c669e6p-4f, -0x1.5ce4bcp-4f, -0x1.e516c6p-5f, -0x1.348054p-5f, -0x1.68dc76p-6f, -0x1.87872ep-7f, -0x1.89a04p-8f,
     -0x1.70f14p-9f, -0x1.42ed76p-10f},
    {-0x1.988454p-1f, -0x1.7f933cp-1f, -0x1.3b6f6p-1f, -0x1.bb4002p-2f, -0x1.efbcdp-3f, -0x1.483f1ep-4f, 0x1.0a0448p-5f,
     0x1.7762cep-4f, 0x1.ba4b36p-4f, 0x1.8e3908p-4f, 0x1.316436p-4f, 0x1.9e579p-5f, 0x1.fc612ap-6f, 0x1.1c326ep-6f,
     0x1.2477bcp-7f, 0x1.16567ep-8f},
    {0x1.504192p-19f, 0x1.85c228p-3f, 0x1.520076p-2f, 0x1.8d80dp-2f, 0x1.73b282p-2f, 0x1.1d1b12p-2f, 0x1.5be642p-3f,
     0x1.221ebep-4f, -0x1.b9bd44p-14f, -0x1.369954p-5f, -0x1.93d1eap-5f, -0x1.6ce474p-5f, -0x1.10544cp-5f, -0x1.62126ep-6f,
     -0x1.9c189ep-7f, -0x1.b36e7p-8f},
    {0x1.104076p-2f, 0x1.d6b196p-3f, 0x1.15da2ep-3f, 0x1.375124p-6f, -0x1.4a320ep-4f, -0x1.183324p-3f, -0x1.279d22p-3f,
     -0x1.dabe34p-4f, -0x1.268168p-4f, -0x1.f80a36p-6f, -0x1.0e5c1p-9f, 0x1.99f832p-7f, 0x1.0a3e8ap-6f, 0x1.ccfdfp-7f,
     0x1.45257p-7f, 0x1.8d7fdcp-8f},
    {0x1.7a5848p-10f, -0x1.1d8f34p-4f, -0x1.cc0acep-4f, -0x1.d37cbp-4f, -0x1.4a775ap-4f, -0x1.fc7b62p-6f, 0x1.c194d6p-7f,
     0x1.4500dap-5f, 0x1.706f34p-5f, 0x1.2614a6p-5f, 0x1.5e3aeap-6f, 0x1.10f02ep-7f, 0x1.382f9p-20f, -0x1.e26324p-9f,
     -0x1.15be82p-8f, -0x1.b8acd8p-9f},
    {-0x1.2085ccp-4f, -0x1.8557bcp-5f, -0x1.2a36cp-6f, 0x1.de62acp-7f, 0x1.26e072p-5f, 0x1.48b17ap-5f, 0x1.deaf5ep-6f,
     0x1.8d457p-7f, -0x1.5a4f12p-9f, -0x1.5a7f2cp-7f, -0x1.7f87ep-7f, -0x1.1d4c7p-7f, -0x1.31f962p-8f, -0x1.7d3452p-10f,
     0x1.4a4e7ap-12f, 0x1.e407ecp-11f},
    {0x1.f38baap-6f, 0x1.c5e24ep-7f, 0x1.6fde82p-6f, 0x1.3a8a7cp-6f, 0x1.1d5ba4p-7f, -0x1.98e454p-9f, -0x1.6f8a8ap-7f,
     -0x1.70604ep-7f, -0x1.e0bcfap-8f, -0x1.79fe28p-9f, 0x1.1340aap-10f, 0x1.5b2b04p-9f, 0x1.530c0ap-9f, 0x1.ad2282p-10f,
     0x1.7cdfa6p-11f, 0x1.0d4f2cp-13f},
}};
// 2^-27.8
inline constexpr PiecesOf<8> kGeluSlope8 = {{
    {0.0f, 0x1.08a588p-1f, 0x1.089088p+0f, 0x1.8cd3ccp+0f, 0x1.087488p+1f, 0x1.4a9d2ap+1f, 0x1.8cd54cp+1f, 0x1.cee46ep+1f},
    {0x1.p-1f, 0x1.f48282p-4f, -0x1.74c45ap-4f, -0x1.00e5a8p-3f, -0x1.3ff984p-4f, -0x1.0448cep-5f, -0x1.2bedb2p-7f,
     -0x1.fbb2bep-10f},
    {-0x1.988454p-1f, -0x1.35af34p-1f, -0x1.be65ep-3f, 0x1.8bf69p-5f, 0x1.b6a536p-4f, 0x1.0fa9c4p-4f, 0x1.9712bp-6f,
     0x1.a2ccep-8f},
    {0x1.1c9aa4p-19f, 0x1.58d324p-2f, 0x1.6ad64p-2f, 0x1.303264p-3f, -0x1.ad2fdep-7f, -0x1.9145cp-5f, -0x1.d1365ap-6f,
     -0x1.364628p-7f},
    {0x1.10467cp-2f, 0x1.064244p-3f, -0x1.74e38ep-4f, -0x1.20964ap-3f, -0x1.eda872p-5f, 0x1.1873d8p-8f, 0x1.03659ep-6f,
     0x1.0704f2p-7f},
    {0x1.0dd02cp-10f, -0x1.d1fe1cp-4f, -0x1.30ed4cp-4f, 0x1.515092p-6f, 0x1.655114p-5f, 0x1.104a2p-6f, -0x1.015044p-9f,
     -0x1.0157d4p-8f},
    {-0x1.1791a4p-4f, -0x1.0684a2p-6f, 0x1.3620ecp-5f, 0x1.aa9b32p-6f, -0x1.69c1f6p-8f, -0x1.68cdfep-7f, -0x1.a4e028p-9f,
     0x1.77af38p-11f},
    {0x1.368772p-5f, 0x1.78401cp-6f, 0x1.c9f63ap-8f, -0x1.67cdp-7f, -0x1.a701cp-8f, 0x1.dddd84p-10f, 0x1.25d31ap-9f,
     0x1.b0e9fp-12f},
    {-0x1.44330cp-4f, 0x1.14f75ap-10f, -0x1.c1d9b8p-8f, -0x1.a7e78cp-10f, 0x1.6e22dp-9f, 0x1.470b3cp-10f, -0x1.f93dd8p-12f,
     -0x1.6c94eap-12f},
    {0x1.56c6bap-4f, -0x1.37edf6p-8f, 0x1.36e488p-11f, 0x1.33fdbcp-11f, 0x1.8a520cp-17f, -0x1.e86c86p-11f, -0x1.4db3aap-13f,
     0x1.8254fap-14f},
}};
// 2^-27.7
inline constexpr PiecesOf<16> kGeluTanh16 = {{
    {0.0f, 0x1.00128p-2f, 0x1.00068p-1f, 0x1.801ap-1f, 0x1.ffd6p-1f, 0x1.40048p+0f, 0x1.800e8p+0f, 0x1.c0058p+0f,
     0x1.fffep+0f, 0x1.2014p+1f, 0x1.3fffp+1f, 0x1.5fff8p+1f, 0x1.7ffc8p+1f, 0x1.a009p+1f, 0x1.c0138p+1f, 0x1.dff6p+1f},
    {0x1.p-1f, 0x1.9ae6dep-2f, 0x1.3bf5b8p-2f, 0x1.d032e6p-3f, 0x1.4565c2p-3f, 0x1.b16c38p-4f, 0x1.121e74p-4f,
     0x1.489408p-5f, 0x1.73f68p-6f, 0x1.8b822cp-7f, 0x1.8b75cep-8f, 0x1.701f6ap-9f, 0x1.3df5aap-10f, 0x1.f99078p-12f,
     0x1.704aa8p-13f, 0x1.eb25fep-15f},
    {-0x1.988454p-2f, -0x1.8be1e6p-2f, -0x1.6851ecp-2f, -0x1.340d46p-2f, -0x1.ef4ec4p-3f, -0x1.760cb2p-3f, -0x1.09b14p-3f,
     -0x1.630ba2p-4f, -0x1.bdac6ep-5f, -0x1.05cc48p-5f, -0x1.2048c4p-6f, -0x1.27031ep-7f, -0x1.17a406p-8f, -0x1.e74812p-10f,
     -0x1.8462p-11f, -0x1.1abc34p-12f},
    {0x1.525a9ap-20f, 0x1.8dcb3ap-5f, 0x1.698af2p-4f, 0x1.cec0b6p-4f, 0x1.ee617ap-4f, 0x1.d18254p-4f, 0x1.8bf7ep-4f,
     0x1.3488dap-4f, 0x1.bbc58p-5f, 0x1.27496p-5f, 0x1.6d2b3cp-6f, 0x1.a17cd8p-7f, 0x1.b84c54p-8f, 0x1.a97c2ep-9f,
     0x1.7701bp-10f, 0x1.2cdcb8p-11f},
    {0x1.118168p-4f, 0x1.f08216p-5f, 0x1.6774acp-5f, 0x1.60f8aap-6f, -0x1.92483ep-12f, -0x1.1aa8c8p-6f, -0x1.b5e636p-6f,
     -0x1.de455ap-6f, -0x1.b3f002p-6f, -0x1.5dbb12p-6f, -0x1.fa720cp-7f, -0x1.4d6a86p-7f, -0x1.908596p-8f, -0x1.b58e58p-9f,
     -0x1.b14bdep-10f, -0x1.8450bp-11f},
    {0x1.7bec8ep-11f, -0x1.8cd042p-7f, -0x1.504b68p-6f, -0x1.7aa8d2p-6f, -0x1.48173p-6f, -0x1.b37e7p-7f, -0x1.77fdc8p-8f,
     0x1.e3c4cep-12f, 0x1.19ad04p-8f, 0x1.7fab0cp-8f, 0x1.78738ap-8f, 0x1.3561d8p-8f, 0x1.bd92bep-9f, 0x1.1d4f2p-9f,
     0x1.4640b2p-10f, 0x1.4db8ap-11f},
    {-0x1.fa1bbep-7f, -0x1.1c494cp-7f, -0x1.23ff86p-8f, 0x1.78c97ep-13f, 0x1.11764ep-8f, 0x1.91a422p-8f, 0x1.6fe58ep-8f,
     0x1.0b0fd6p-8f, 0x1.1597d4p-9f, 0x1.e5d956p-12f, -0x1.1e86ecp-11f, -0x1.073f12p-10f, -0x1.14a27ep-10f,
     -0x1.c9d932p-11f, -0x1.414c5p-11f, -0x1.8742eap-12f},
    {0x1.d55d0ep-7f, 0x1.6d195ep-9f, 0x1.e1ce18p-9f, 0x1.af8738p-9f, 0x1.2fb83ap-9f, 0x1.9c70cp-12f, -0x1.24aa6p-11f,
     -0x1.731972p-10f, -0x1.376918p-10f, -0x1.c03eb6p-11f, -0x1.e94d22p-12f, -0x1.2e7d9p-13f, 0x1.2f351cp-14f,
     0x1.537a8p-13f, 0x1.6f2df4p-13f, 0x1.266816p-13f},
}};
// 2^-28.4
inline constexpr PiecesOf<8> kGeluTanh8 = {{
    {0.0f, 0x1.087d88p-1f, 0x1.089f88p+0f, 0x1.8cd74cp+0f, 0x1.089808p+1f, 0x1.5a0864p+1f, 0x1.91efcap+1f, 0x1.cf3dd6p+1f},
    {0x1.p-1f, 0x1.36070cp-2f, 0x1.34d728p-3f, 0x1.f11cap-5f, 0x1.3bf6fcp-6f, 0x1.aae1dap-9f, 0x1.7f4962p-11f, 0x1.ba205ap-14f},
    {-0x1.988454p-2f, -0x1.654b7ap-2f, -0x1.de816ap-3f, -0x1.ecaa98p-4f, -0x1.84f68ep-5f, -0x1.502934p-7f, -0x1.62e818p-9f,
     -0x1.e63c1ep-12f},
    {0x1.238604p-20f, 0x1.725192p-4f, 0x1.eda85ep-4f, 0x1.7b3e54p-4f, 0x1.90d9fcp-5f, 0x1.d226ep-7f, 0x1.2834b4p-8f,
     0x1.ebe06ap-11f},
    {0x1.118c4p-4f, 0x1.5c4116p-5f, -0x1.90c8ecp-9f, -0x1.c6639ep-6f, -0x1.9f92ep-6f, -0x1.6af53cp-7f, -0x1.20d8fcp-8f,
     -0x1.2bb6cap-10f},
    {0x1.1e94bcp-11f, -0x1.560f86p-6f, -0x1.3b7782p-6f, -0x1.1c4c7ap-8f, 0x1.42918ap-8f, 0x1.4467b4p-8f, 0x1.600776p-9f,
     0x1.e1381cp-11f},
    {-0x1.e2cb14p-7f, -0x1.145178p-8f, 0x1.32ee72p-8f, 0x1.65abc2p-8f, 0x1.a63dacp-10f, -0x1.f6b974p-11f, -0x1.fd5ba8p-11f,
     -0x1.01ed4ep-11f},
    {0x1.52e2e8p-6f, 0x1.b07832p-9f, 0x1.c94a9cp-10f, -0x1.de0a74p-11f, -0x1.3157e8p-10f, -0x1.afa994p-13f, 0x1.124f4p-13f,
     0x1.552b3cp-13f},
    {-0x1.87061cp-5f, 0x1.511adep-13f, -0x1.09cdp-10f, -0x1.c4bc46p-12f, 0x1.90aa42p-13f, 0x1.6d3d1ep-13f, 0x1.c18936p-15f,
     -0x1.45190ep-16f},
    {0x1.80c6bcp-5f, -0x1.59547p-11f, 0x1.b58842p-15f, 0x1.24575ep-20f, 0x1.2d6c2ep-15f, -0x1.1d2108p-16f, -0x1.d4e756p-16f,
     -0x1.1f4fe8p-17f},
}};
// 2^-26.4
inline constexpr PiecesOf<16> kGeluTanhSlope16 = {{
    {0.0f, 0x1.001bp-2f, 0x1.ffd2p-2f, 0x1.7ff68p-1f, 0x1.fff9p-1f, 0x1.3ff3p+0f, 0x1.7ff08p+0f, 0x1.bfed8p+0f,
     0x1.000ap+1f, 0x1.1fe98p+1f, 0x1.3fe68p+1f, 0x1.600c8p+1f, 0x1.7ffc8p+1f, 0x1.a00a8p+1f, 0x1.bffbp+1f, 0x1.dffcp+1f},
    {0x1.p-1f, 0x1.37e0ep-2f, 0x1.0fd9p-3f, 0x1.1e8b4ep-10f, -0x1.53c496p-4f, -0x1.f5a9fp-4f, -0x1.059104p-3f,
     -0x1.c934a2p-4f, -0x1.608718p-4f, -0x1.eb5f96p-5f, -0x1.3762b8p-5f, -0x1.67492cp-6f, -0x1.7bb38p-7f, -0x1.6c4cbep-8f,
     -0x1.3db638p-9f, -0x1.f306fap-11f},
    {-0x1.988454p-1f, -0x1.7f7108p-1f, -0x1.3b32eep-1f, -0x1.babd8ap-2f, -0x1.efff9ap-3f, -0x1.4cf76p-4f, 0x1.f2b196p-6f,
     0x1.719d24p-4f, 0x1.b9dd08p-4f, 0x1.9328aap-4f, 0x1.389d22p-4f, 0x1.aa3d36p-5f, 0x1.044d38p-5f, 0x1.1cca9cp-6f,
     0x1.184792p-7f, 0x1.ed11dap-9f},
    {0x1.5061bp-19f, 0x1.87829p-3f, 0x1.52789cp-2f, 0x1.8cb10ap-2f, 0x1.7188cap-2f, 0x1.1aff3p-2f, 0x1.5bfa66p-3f,
     0x1.2a5be8p-4f, 0x1.6f15eap-9f, -0x1.25c5d4p-5f, -0x1.91bdfap-5f, -0x1.767132p-5f, -0x1.1d7618p-5f, -0x1.75b9dap-6f,
     -0x1.acf78ep-7f, -0x1.b0f7a2p-8f},
    {0x1.119986p-2f, 0x1.d7b4e6p-3f, 0x1.13aadcp-3f, 0x1.15999ep-6f, -0x1.4e814ep-4f, -0x1.15596ap-3f, -0x1.217756p-3f,
     -0x1.d158d8p-4f, -0x1.26cd52p-4f, -0x1.0d292p-5f, -0x1.233cfcp-8f, 0x1.707a68p-7f, 0x1.0bda9p-6f, 0x1.e9c1dp-7f,
     0x1.62d572p-7f, 0x1.af52e2p-8f},
    {0x1.7af446p-10f, -0x1.23ca4ap-4f, -0x1.d2b99p-4f, -0x1.d3985p-4f, -0x1.420578p-4f, -0x1.d46e96p-6f, 0x1.cf4516p-7f,
     0x1.360eeap-5f, 0x1.5c0e54p-5f, 0x1.1bf316p-5f, 0x1.66fb4ep-6f, 0x1.3f70d8p-7f, 0x1.3265dap-10f, -0x1.b29884p-9f,
     -0x1.26cd66p-8f, -0x1.f1fa3ep-9f},
    {-0x1.264076p-4f, -0x1.8cdedep-5f, -0x1.26fde2p-6f, 0x1.05d5a4p-6f, 0x1.32069p-5f, 0x1.430638p-5f, 0x1.be280ap-6f,
     0x1.5fc7eep-7f, -0x1.328416p-9f, -0x1.28c614p-7f, -0x1.568f6ep-7f, -0x1.168938p-7f, -0x1.54eb34p-8f, -0x1.11f66p-9f,
     -0x1.0c6028p-17f, 0x1.ea2474p-11f},
    {0x1.f6a688p-6f, 0x1.0079f2p-6f, 0x1.9a2ed8p-6f, 0x1.4829fep-6f, 0x1.0f0458p-7f, -0x1.ed4128p-9f, -0x1.4fd18p-7f,
     -0x1.54b64ap-7f, -0x1.bbfaa2p-8f, -0x1.56b806p-9f, 0x1.fe5a26p-12f, 0x1.05511p-9f, 0x1.26993cp-9f, 0x1.c30946p-10f,
     0x1.0072cap-10f, 0x1.385e3cp-12f},
}};
// 2^-27.3
inline constexpr PiecesOf<8> kGeluTanhSlope8 = {{
    {0.0f, 0x1.087688p-1f, 0x1.08a188p+0f, 0x1.8ce4ccp+0f, 0x1.08a608p+1f, 0x1.4ac22ap+1f, 0x1.8cd64cp+1f, 0x1.cee5eep+1f},
    {0x1.p-1f, 0x1.f5f3f6p-4f, -0x1.7397f8p-4f, -0x1.018eeep-3f, -0x1.42d76cp-4f, -0x1.0540acp-5f, -0x1.1e21e6p-7f,
     -0x1.a0704ap-10f},
    {-0x1.988454p-1f, -0x1.357cfep-1f, -0x1.beae5p-3f, 0x1.7d636ep-5f, 0x1.b79db4p-4f, 0x1.165988p-4f, 0x1.9e1a1p-6f,
     0x1.83a488p-8f},
    {0x1.1c998cp-19f, 0x1.592eap-2f, 0x1.6886d6p-2f, 0x1.308cccp-3f, -0x1.5aa2a8p-7f, -0x1.93c6eap-5f, -0x1.e9e556p-6f,
     -0x1.3cd5cap-7f},
    {0x1.119f92p-2f, 0x1.03f90ap-3f, -0x1.783808p-4f, -0x1.1a3aa2p-3f, -0x1.f12b6p-5f, 0x1.260acp-9f, 0x1.0bb3f6p-6f,
     0x1.1f0d4ap-7f},
    {0x1.0db82ep-10f, -0x1.d84f6p-4f, -0x1.2785a4p-4f, 0x1.52049cp-6f, 0x1.52039p-5f, 0x1.1f4138p-6f, -0x1.210946p-10f,
     -0x1.1b2198p-8f},
    {-0x1.1d270ap-4f, -0x1.f7fe5ap-7f, 0x1.3e785ap-5f, 0x1.887684p-6f, -0x1.3bc204p-8f, -0x1.4a75ep-7f, -0x1.faf068p-9f,
     0x1.2b7edcp-11f},
    {0x1.3646f4p-5f, 0x1.8b8f4cp-6f, 0x1.81f4f2p-8f, -0x1.6bd7f2p-7f, -0x1.6ab0b4p-8f, 0x1.26519ep-10f, 0x1.179afcp-9f,
     0x1.510f0ap-11f},
    {-0x1.41fbaap-4f, 0x1.5256a6p-10f, -0x1.e688a4p-8f, -0x1.ab3d9cp-11f, 0x1.38d28p-9f, 0x1.f10a8p-11f, -0x1.e965f6p-13f,
     -0x1.a823aap-12f},
    {0x1.56458p-4f, -0x1.aa204ep-8f, 0x1.48b6a4p-11f, 0x1.c2285p-10f, 0x1.7b4666p-13f, -0x1.4c6beep-12f, -0x1.4baf3ep-13f,
     0x1.23929cp-14f},
}};

template <size_t kLanes>
constexpr const auto& GeluPieces() {
  if constexpr (kLanes == 16) {
    return kGelu16;
  } else {
    return kGelu8;
  }
}

template <size_t kLanes>
constexpr const auto& GeluSlopePieces() {
  if constexpr (kLanes == 16) {
    return kGeluSlope16;
  } else {
    return kGeluSlope8;
  }
}

template <size_t kLanes>
constexpr const auto& GeluTanhPieces() {
  if constexpr (kLanes == 16) {
    return kGeluTanh16;
  } else {
    return kGeluTanh8;
  }
}

template <size_t kLanes>
constexpr const auto& GeluTanhSlopePieces() {
  if constexpr (kLanes == 16) {
    return kGeluTanhSlope16;
  } else {
    return kGeluTanhSlope8;
  }
}

// log(1 + e) about centres that stand about 1/kLast apart, from 0 to 1, where it and 1 / (1 + e) both lie next to a float.
template <size_t kEntries>
struct LogarithmsOf {
  static constexpr float kLast = kEntries - 1;
  alignas(64) float centre[kEntries], inverse[kEntries], logarithm[kEntries];
};
inline constexpr LogarithmsOf<16> kLogOnePlus16 = {
    {0.0f, 0x1.072512p-4f, 0x1.140792p-3f, 0x1.94b59ap-3f, 0x1.117f12p-2f, 0x1.53e396p-2f, 0x1.99f61ap-2f, 0x1.dbeb1ep-2f,
     0x1.10def2p-1f, 0x1.339d74p-1f, 0x1.540e36p-1f, 0x1.774db8p-1f, 0x1.98fc5ap-1f, 0x1.baac9cp-1f, 0x1.df1c5ep-1f, 0x1.feba2p-1f},
    {1.0f, 0x1.e117bp-1f, 0x1.c33052p-1f, 0x1.ab8476p-1f, 0x1.9413ap-1f, 0x1.80681ap-1f, 0x1.6d9f44p-1f, 0x1.5d8b5ap-1f,
     0x1.4dff1p-1f, 0x1.3fd684p-1f, 0x1.33a924p-1f, 0x1.27705cp-1f, 0x1.1ca258p-1f, 0x1.12970ap-1f, 0x1.087ec2p-1f, 0x1.005192p-1f},
    {0.0f, 0x1.fe132ep-5f, 0x1.02f26p-3f, 0x1.7150a2p-3f, 0x1.e4cd76p-3f, 0x1.2580acp-2f, 0x1.58ce3ep-2f, 0x1.86dad8p-2f,
     0x1.b5728p-2f, 0x1.e1cd6ap-2f, 0x1.04c684p-1f, 0x1.198796p-1f, 0x1.2c9afcp-1f, 0x1.3effd4p-1f, 0x1.522d48p-1f, 0x1.624126p-1f},
};
inline constexpr LogarithmsOf<8> kLogOnePlus8 = {
    {0.0f, 0x1.238bcap-3f, 0x1.23bdcap-2f, 0x1.b890aep-2f, 0x1.235c0ap-1f, 0x1.6c575cp-1f, 0x1.b8452ep-1f, 0x1.feba2p-1f},
    {1.0f, 0x1.c03244p-1f, 0x1.8e7934p-1f, 0x1.65fb66p-1f, 0x1.464f48p-1f, 0x1.2b2276p-1f, 0x1.13488p-1f, 0x1.005192p-1f},
    {0.0f, 0x1.10932cp-3f, 0x1.00b33ep-2f, 0x1.6e6e18p-2f, 0x1.cd4a08p-2f, 0x1.132a26p-1f, 0x1.3db55ap-1f, 0x1.624126p-1f},
};

template <size_t kLanes>
constexpr const auto& LogOnePlusTable() {
  if constexpr (kLanes == 16) {
    return kLogOnePlus16;
  } else {
    return kLogOnePlus8;
  }
}

}  // namespace ulproof
