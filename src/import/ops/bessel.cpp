// Bessel functions of order 0 and 1, and Airy's, computed in f64. Coefficients are those of Chebyshev series of the functions, in 45
// digits: near 0 of what is left of a function when its logarithm and its pole are gone, far off of modulus and phase.
#include <cmath>
#include <numbers>
#include <span>

#include "import/ops/special.h"

namespace kiln::import {
namespace {

// --- Modified, of the first kind ---

// Of modified Bessel functions of the first kind, order 0 and 1: e^-x I0(x) and e^-x I1(x) / x with x = 4 (1 + t), and
// sqrt(x) e^-x times them with x = 16 / (1 + t).
constexpr double kI0Near[] = {
    0.33839763720473803,    -0.3046826723431984,     0.17162090152220877,    -0.09490109704804764,
    0.04930528423967071,    -0.02373741480589947,    0.010546460394594998,   -0.004324309995050576,
    0.0016394756169413357,  -0.0005763755745385824,  0.00018850288509584165, -5.754195010082104e-05,
    1.6448448070728896e-05, -4.4167383584587505e-06, 1.1173875391201037e-06, -2.670793853940612e-07,
    6.046995022541919e-08,  -1.300025009986248e-08,  2.6598237246823866e-09, -5.189795601635263e-10,
    9.675809035373237e-11,  -1.726826291441556e-11,  2.95505266312964e-12,   -4.856446783111929e-13,
    7.676185498604936e-14,  -1.1685332877993451e-14, 1.715391285555133e-15,  -2.431279846547955e-16,
    3.3307945188222384e-17, -4.4153416464793395e-18};
constexpr double kI1Near[] = {
    0.12629359322181682,     -0.17641651835783406,    0.1026436586898471,
    -0.05294598120809499,    0.024726449030626516,    -0.010564084894626197,
    0.004156422944312888,    -0.0015135724506312532,  0.0005122859561685758,
    -0.00016176081582589674, 4.781565107550054e-05,   -1.3273163656039436e-05,
    3.4702513081376785e-06,  -8.568720264695455e-07,  2.0032947535521353e-07,
    -4.445059128796328e-08,  9.381537386495773e-09,   -1.8872497517228294e-09,
    3.625590281552117e-10,   -6.663489723502027e-11,  1.1736186298890901e-11,
    -1.9839743977649436e-12, 3.223793365945575e-13,   -5.042185504727912e-14,
    7.600684294735408e-15,   -1.1055969477353862e-15, 1.5536319577362005e-16,
    -2.111421214358166e-17,  2.7779141127610464e-18};
constexpr double kI0Far[] = {
    0.4022452055070544,      0.0033691164782556943,   6.889758346916825e-05,
    2.8913705208347567e-06,  2.0489185894690638e-07,  2.266668990498178e-08,
    3.3962320257083865e-09,  4.94060238822497e-10,    1.1889147107846439e-11,
    -3.1499165279632416e-11, -1.3215811840447713e-11, -1.7941785315068062e-12,
    7.180124451383666e-13,   3.8527783827421426e-13,  1.54008621752141e-14,
    -4.150569347287222e-14,  -9.554846698828307e-15,  3.8116806693526224e-15,
    1.7725601330565263e-15,  -3.425485619677219e-16,  -2.8276239805165836e-16,
    3.461222867697461e-17,   4.46562142029676e-17,    -4.830504485944182e-18,
    -7.233180487874754e-18};
constexpr double kI1Far[] = {
    0.38928811750914005,     -0.009761097491361469,   -0.00011058893876262371,
    -3.882564808877691e-06,  -2.512236237870209e-07,  -2.6314688468895196e-08,
    -3.835380385964237e-09,  -5.589743462196584e-10,  -1.8974958123505413e-11,
    3.2526035830154884e-11,  1.4125807436613782e-11,  2.0356285441470896e-12,
    -7.198551776245908e-13,  -4.0835511110921974e-13, -2.1015418427726643e-14,
    4.272440016711951e-14,   1.0420276984128802e-14,  -3.8144030724370075e-15,
    -1.8803547755107825e-15, 3.3082023109209285e-16,  2.96262899764595e-16,
    -3.209525921993424e-17,  -4.6503053684893586e-17, 4.414348323071708e-18,
    7.517296310842105e-18};
constexpr double kBesselSeam = 8;

// e^-|x| In(x), both parts computed where they are finite.
Expr scaled_bessel(const Expr& x, std::span<const double> near, std::span<const double> far,
                   bool is_odd) {
  const Expr size = x.apply(Op::abs);
  const Expr small = size.apply(Op::minimum, kBesselSeam);
  const Expr large = size.apply(Op::maximum, kBesselSeam);
  const Expr inner = chebyshev(small / 4 - 1, near);
  const Expr outer = chebyshev(large.constant(16) / large - 1, far) / large.apply(Op::sqrt);
  const Expr is_near = size.apply(Op::le, kBesselSeam);
  const Expr result = is_near.select(is_odd ? inner * small : inner, outer);
  const Expr with_sign = is_odd ? x.apply(Op::lt, 0).select(-result, result) : result;
  return x.apply(Op::isnan).select(x, with_sign);
}

Expr compose_i0e(Call&, const Expr& x) { return scaled_bessel(x, kI0Near, kI0Far, false); }
Expr compose_i1e(Call&, const Expr& x) { return scaled_bessel(x, kI1Near, kI1Far, true); }
Expr compose_i0(Call& call, const Expr& x) {
  return compose_i0e(call, x) * x.apply(Op::abs).apply(Op::exp);
}
Expr compose_i1(Call& call, const Expr& x) {
  return compose_i1e(call, x) * x.apply(Op::abs).apply(Op::exp);
}

// --- Modified, of the second kind ---

// Up to 2, of t = x^2 / 2 - 1: K0(x) + log(x / 2) I0(x), and x (K1(x) - log(x / 2) I1(x)). Beyond, of t = 4 / x - 1: both with the
// factor sqrt(x) e^x.
constexpr double kK0Near[] = {-0.2676636966169514,   0.3442898999246285,     0.0359799365153615,
                              0.001264615411446926,  2.286212103119452e-05,  2.5347910790261494e-07,
                              1.904516377220209e-09, 1.0349695257633625e-11, 4.2598161427910826e-14,
                              1.3744654358807508e-16};
constexpr double kK1Near[] = {
    0.7626501136694739,     -0.3531559607765449,     -0.12261118082265715,
    -0.006975723859639864,  -0.0001730288957513052,  -2.4334061415659684e-06,
    -2.213387630734726e-08, -1.4114883926335278e-10, -6.666901694199329e-13,
    -2.427449850519366e-15, -7.023863479386288e-18};
constexpr double kK0Far[] = {
    1.2201515410329777,      -0.0314481013119645,    0.0015698838857300533,
    -0.00012849549581627802, 1.39498137188765e-05,   -1.8317555227191195e-06,
    2.766813639445015e-07,   -4.660489897687948e-08, 8.574034017414225e-09,
    -1.6975345093890614e-09, 3.5773972814003283e-10, -7.957489244477396e-11,
    1.8559491149549264e-11,  -4.514597883374519e-12, 1.1403405882073441e-12,
    -2.9800969231481784e-13, 8.032890775068375e-14,  -2.2275133267462965e-14,
    6.340076476276646e-15,   -1.848593377920907e-15, 5.5120559994043335e-16,
    -1.6782311257549006e-16, 5.2103917776435543e-17, -1.6475805939842632e-17,
    5.3004337711773354e-18};
constexpr double kK1Far[] = {
    1.3603130952422213,      0.10392373657681724,     -0.002857816859622779,
    0.00019521551847135162,  -1.936197974166083e-05,  2.406484947837217e-06,
    -3.5019606030878126e-07, 5.7410841254500495e-08,  -1.0345762465678097e-08,
    2.0150497551970347e-09,  -4.1903547593419254e-10, 9.218315187605315e-11,
    -2.129967838427791e-11,  5.139639673482343e-12,   -1.2891739609498229e-12,
    3.348419666052243e-13,   -8.976705182010146e-14,  2.4771544242195988e-14,
    -7.0198370892147685e-15, 2.038703166239861e-15,   -6.057047270643018e-16,
    1.8380935752430455e-16,  -5.689462849193648e-17,  1.7940510478863572e-17,
    -5.7567444820733025e-18};

// e^x Kn(x); infinite at 0, and NaN below.
template <int order>
Expr compose_scaled_k(Call& call, const Expr& x) {
  const Expr small = x.apply(Op::minimum, 2), large = x.apply(Op::maximum, 2);
  const Expr t = small * small * 0.5 - 1, logarithm = (small * 0.5).apply(Op::log);
  const Expr near = order == 0
                        ? chebyshev(t, kK0Near) - logarithm * compose_i0(call, small)
                        : chebyshev(t, kK1Near) / small + logarithm * compose_i1(call, small);
  const Expr far = chebyshev(large.constant(4) / large - 1,
                             order == 0 ? std::span<const double>(kK0Far) : kK1Far) /
                   large.apply(Op::sqrt);
  const Expr result = x.apply(Op::le, 2).select(near * small.apply(Op::exp), far);
  const Expr known = x.apply(Op::eq, 0).select(x.constant(kInfinity), result);
  return x.apply(Op::ge, 0).select(known, x.constant(kNaN));
}

template <int order>
Expr compose_k(Call& call, const Expr& x) {
  // Of two factors: e^-x may be below the normal numbers.
  const Expr half = (x * -0.5).apply(Op::exp);
  return compose_scaled_k<order>(call, x) * half * half;
}

// --- Of the first and second kind ---

// Up to 8, of t = x^2 / 32 - 1: J0(x), J1(x) / x, Y0(x) - 2 / pi log(x) J0(x), and (Y1(x) - 2 / pi (log(x) J1(x) - 1 / x)) / x.
constexpr double kJ0Near[] = {
    0.15772797147489012,   -0.008723442352852221,   0.2651786132033368,    -0.37009499387264977,
    0.15806710233209725,   -0.034893769411408884,   0.004819180069467605,  -0.00046062616620627504,
    3.246032882100508e-05, -1.7619469077621507e-06, 7.608163592418782e-08, -2.679253530557673e-09,
    7.848696314479465e-11, -1.9438346867370164e-12, 4.125320595634374e-14, -7.588508125447546e-16,
    1.2218515873961411e-17};
constexpr double kJ1Near[] = {
    0.08104484632565812,    -0.1489751450676521,    0.1609992623572097,     -0.08268049176681791,
    0.022213639654966037,   -0.003646940600769276,  0.0004050337728354822,  -3.255554866857259e-05,
    1.9858774049915165e-06, -9.521984756750436e-08, 3.687133759097148e-09,  -1.178026622695885e-10,
    3.160154580348003e-12,  -7.221755239651773e-14, 1.4232144003513942e-15, -2.4441972916190464e-17,
    3.6912682997929334e-19};
constexpr double kY0Near[] = {
    -0.03314611320328494,    -0.2744743055297453,   0.17903431407718265,    0.26156734625504663,
    -0.17730201278114358,    0.04719668959576339,   -0.007287962479552079,  0.0007531135932577742,
    -5.632079141056987e-05,  3.206532537654801e-06, -1.44072332740187e-07,  5.248794787330516e-09,
    -1.5837552541812015e-10, 4.02633081830612e-12,  -8.747341203310769e-14, 1.6434898714919468e-15,
    -2.6977881152566837e-17};
constexpr double kY1Near[] = {
    0.0025380132357417816,   -0.01608717304766875,   -0.09591204536083074,    0.08445197259652346,
    -0.028328123944594365,   0.005289897544167113,   -0.0006414551451326356,  5.505982873338744e-05,
    -3.53808001868935e-06,   1.7707804556154404e-07, -7.11055004989928e-09,   2.344337905911516e-10,
    -6.4651518414115946e-12, 1.51429151205002e-13,   -3.0511859694473254e-15, 5.34668038572867e-17,
    -8.224911372021585e-19};
// Beyond, of t = 2 (8 / x)^2 - 1: P and x Q, with which Jn(x) = sqrt(2 / (pi x)) (P cos(c) - Q sin(c)) and
// Yn(x) = sqrt(2 / (pi x)) (P sin(c) + Q cos(c)), c = x - (2 n + 1) pi / 4.
constexpr double kP0Far[] = {
    0.9994603493475187,     -0.0005365220468132117, 3.0751847875194745e-06, -5.1705945376060975e-08,
    1.6306464635151382e-09, -7.86409137723707e-11,  5.168262387349193e-12,  -4.3045788699253914e-13,
    4.3265957431549404e-14, -5.069034095935236e-15, 6.748072215733873e-16,  -1.0011513723467786e-16,
    1.6305919233744186e-17, -2.880866169482871e-18};
constexpr double kQ0Far[] = {
    -0.12444683684269607,    0.0005470815954089319,  -5.9315987288485175e-06,
    1.4377965798375193e-07,  -5.817532749493056e-09, 3.376097523734991e-10,
    -2.565397936797308e-11,  2.404916100281365e-12,  -2.6690625482579414e-13,
    3.4041800321963686e-14,  -4.87994410531204e-15,  7.729703176242605e-16,
    -1.3348852171502517e-16, 2.4865952389390515e-17, -4.952892629886516e-18,
    1.0473158973776097e-18};
constexpr double kP1Far[] = {
    1.0009030408600137,      0.0008989898330859408, -3.987284300488908e-06, 6.177633960644299e-08,
    -1.8718907491063067e-09, 8.816898659582339e-11, -5.704863640395645e-12, 4.699195515230542e-13,
    -4.6842237839904895e-14, 5.452674896044717e-15, -7.221180842274018e-16, 1.0667689114335412e-16,
    -1.7312313216116335e-17, 3.0492991197665872e-18};
constexpr double kQ1Far[] = {
    0.3742222965562826,     -0.0007702178839325664, 7.3108922063643636e-06, -1.676782510726674e-07,
    6.583354662120443e-09,  -3.749090950541556e-10, 2.8121750359748866e-11, -2.61145253946232e-12,
    2.8774212663332235e-13, -3.649001916061838e-14, 5.206626366226707e-15,  -8.215318025458595e-16,
    1.4141084390211833e-16, -2.626761589838529e-17, 5.2192649196714085e-18, -1.101261718787959e-18};

struct Waves {
  Expr first, second;  // Jn and Yn
};

// From 8 on.
template <int order>
Waves far_waves(const Expr& x) {
  const Expr inverse = x.constant(kBesselSeam) / x, t = inverse * inverse * 2 - 1;
  const Expr p = chebyshev(t, order == 0 ? std::span<const double>(kP0Far) : kP1Far);
  const Expr q = chebyshev(t, order == 0 ? std::span<const double>(kQ0Far) : kQ1Far) / x;
  const Expr sine = x.apply(Op::sin), cosine = x.apply(Op::cos);
  // Both times sqrt(2): they have no digits less than x.
  const Expr of_angle = order == 0 ? cosine + sine : sine - cosine;
  const Expr beside = order == 0 ? sine - cosine : -(sine + cosine);
  const Expr scale = (x * kPi).apply(Op::sqrt).apply(Op::reciprocal);
  return {scale * (p * of_angle - q * beside), scale * (p * beside + q * of_angle)};
}

Expr near_j(const Expr& x, int order) {
  const Expr t = x * x * (1.0 / 32) - 1;
  return order == 0 ? chebyshev(t, kJ0Near) : x * chebyshev(t, kJ1Near);
}

// J1 is odd. NaN of infinities, as PyTorch has it.
template <int order>
Expr compose_j(Call&, const Expr& x) {
  const Expr size = x.apply(Op::abs);
  const Expr near = near_j(size.apply(Op::minimum, kBesselSeam), order);
  const Expr far = far_waves<order>(size.apply(Op::maximum, kBesselSeam)).first;
  const Expr result = size.apply(Op::le, kBesselSeam).select(near, far);
  if (order == 0) return result;
  const Expr with_sign = x.apply(Op::lt, 0).select(-result, result);
  return x.apply(Op::eq, 0).select(x, with_sign);
}

// Infinite at 0, and NaN below.
template <int order>
Expr compose_y(Call&, const Expr& x) {
  const Expr small = x.apply(Op::minimum, kBesselSeam), t = small * small * (1.0 / 32) - 1;
  const Expr logarithm = small.apply(Op::log) * near_j(small, order);
  const Expr near = order == 0 ? logarithm * (2 / kPi) + chebyshev(t, kY0Near)
                               : (logarithm - small.apply(Op::reciprocal)) * (2 / kPi) +
                                     small * chebyshev(t, kY1Near);
  const Expr far = far_waves<order>(x.apply(Op::maximum, kBesselSeam)).second;
  const Expr result = x.apply(Op::le, kBesselSeam).select(near, far);
  const Expr known = x.apply(Op::eq, 0).select(x.constant(-kInfinity), result);
  return x.apply(Op::ge, 0).select(known, x.constant(kNaN));
}

// sin(x) / x
Expr compose_spherical_j0(Call&, const Expr& x) {
  const Expr quotient = x.apply(Op::sin) / x;
  const Expr inside = x.apply(Op::eq, 0).select(x.constant(1), quotient);
  return x.apply(Op::isinf).select(x.constant(0), inside);
}

// --- Airy ---

// From -5 to 5/2, of t = (x + 5/4) / (15/4): Ai(x). With s = 2/3 |x|^(3/2), to the right of t = 2 s(5/2) / s - 1: the factor of
// e^-s / (2 sqrt(pi) x^(1/4)); to the left of t = 2 (s(5) / s)^2 - 1: P and s Q with which Ai(x) is
// (P cos(s - pi / 4) + Q sin(s - pi / 4)) / (sqrt(pi) |x|^(1/4)).
constexpr double kAiryNear[] = {
    0.13881740207239276,     -0.029732601693226134,   -0.02790518382961733,
    -0.2398070796946113,     0.1932389907941936,      0.07315347156371751,
    -0.14451260499190305,    0.04708764102978636,     0.02091966468646761,
    -0.02044100808682054,    0.003907515663117822,    0.0021098846498386332,
    -0.001335278818534188,   0.0001590391161442778,   0.00011051126004962945,
    -5.047019649772156e-05,  3.6159175282001277e-06,  3.5553743832851916e-06,
    -1.2439135742374496e-06, 4.545679431578993e-08,   7.744335255817348e-08,
    -2.155238141424132e-08,  1.809651562379155e-10,   1.217977122567459e-09,
    -2.7650377118555343e-10, -4.331175091187095e-12,  1.447995687445635e-11,
    -2.728470549169796e-12,  -1.0199926176795263e-13, 1.346833509340001e-13,
    -2.1317186031700388e-14, -1.2356549924415233e-15, 1.006741050684201e-15,
    -1.3489133370369058e-16, -1.0569936383883659e-17, 6.1787780799885265e-18,
    -7.039391275715201e-19};
constexpr double kAiryRight[] = {
    0.9883819094779528,      -0.011158598393920065,   0.00042827867748723963,
    -2.8347165646340426e-05, 2.5442108137774067e-06,  -2.8009523602105163e-07,
    3.583738299315652e-08,   -5.1549407980390565e-09, 8.152774538520739e-10,
    -1.3954488401638623e-10, 2.5547627353496935e-11,  -4.957936156105477e-12,
    1.0126941433817291e-12,  -2.1646872277952708e-13, 4.819591606319673e-14,
    -1.113326894368584e-14,  2.6594795876175462e-15,  -6.550977817699581e-16,
    1.6599457346143202e-16,  -4.3175788555398516e-17, 1.1506388545532741e-17,
    -3.136739153677943e-18};
constexpr double kAiryPLeft[] = {
    0.9996723415461005,     -0.0003255483561055322, 2.069745155969119e-06, -3.890961736474424e-08,
    1.3645959446950337e-09, -7.265563438866682e-11, 5.234675629062907e-12, -4.749669415821452e-13,
    5.172156139604189e-14,  -6.533725295545284e-15, 9.33927407277721e-16,  -1.4823330512580455e-16,
    2.5745988399644002e-17, -4.8369440585693956e-18};
constexpr double kAiryQLeft[] = {
    0.06911528040160503,    -0.0003251060364586695,  3.945977743866323e-06,  -1.068929090514341e-07,
    4.800334718951617e-09,  -3.0691067169997637e-10, 2.5517594369013928e-11, -2.601606731752434e-12,
    3.123666855119186e-13,  -4.2903251712839485e-14, 6.596710595977435e-15,  -1.116833216041688e-15,
    2.0551350158850327e-16, -4.0680056098438254e-17, 8.589182631392619e-18,  -1.921018818902054e-18,
    4.524779482719087e-19};

Expr compose_airy(Call&, const Expr& x) {
  constexpr double kLeft = -5, kRight = 2.5, kLast = 103.892;  // beyond which PyTorch gives 0
  const double of_left = std::pow(5.0, 1.5) * 2 / 3, of_right = std::pow(kRight, 1.5) * 2 / 3;
  const Expr inside = x.apply(Op::maximum, kLeft).apply(Op::minimum, kRight);
  const Expr near = chebyshev((inside + 1.25) / 3.75, kAiryNear);
  const Expr size = x.apply(Op::abs).apply(Op::maximum, kRight), root = size.apply(Op::sqrt);
  const Expr s = size * root * (2.0 / 3), fourth = root.apply(Op::sqrt);
  const Expr half = (s * -0.5).apply(Op::exp);  // of two factors, as above
  const Expr right = chebyshev(s.constant(2 * of_right) / s - 1, kAiryRight) * half /
                     (fourth * 2 * std::sqrt(kPi)) * half;
  const Expr inverse = (s.constant(of_left) / s).apply(Op::minimum, 1);
  const Expr t = inverse * inverse * 2 - 1;
  const Expr sine = s.apply(Op::sin), cosine = s.apply(Op::cos);
  const Expr left = (chebyshev(t, kAiryPLeft) * (cosine + sine) +
                     chebyshev(t, kAiryQLeft) / s * (sine - cosine)) /
                    (fourth * std::sqrt(2 * kPi));
  const Expr is_left = x.apply(Op::lt, kLeft), is_right = x.apply(Op::gt, kRight);
  const Expr result = is_left.select(left, is_right.select(right, near));
  const Expr known = x.apply(Op::gt, kLast).select(x.constant(0), result);
  return (x.apply(Op::isinf) + x.apply(Op::isnan)).select(x.constant(kNaN), known);
}

// `x` where PyTorch calls the operand that.
template <Composition function>
Value* of_x(Call& call) {
  const Expr x = floating(call, call.has("x") ? "x" : "self");
  const Expr wide(call, call.builder().cast(x, DType::F64));
  return call.builder().cast(function(call, wide), x.value()->type.dtype);
}

constexpr Row kRows[] = {
    {"aten.i0.default", composed_in_f64<compose_i0>},
    {"aten.special_i0.default", composed_in_f64<compose_i0>},
    {"aten.special_modified_bessel_i0.default", composed_in_f64<compose_i0>},
    {"aten.special_i0e.default", composed_in_f64<compose_i0e>},
    {"aten.special_i1.default", composed_in_f64<compose_i1>},
    {"aten.special_modified_bessel_i1.default", composed_in_f64<compose_i1>},
    {"aten.special_i1e.default", composed_in_f64<compose_i1e>},
    {"aten.special_modified_bessel_k0.default", composed_in_f64<compose_k<0>>},
    {"aten.special_modified_bessel_k1.default", composed_in_f64<compose_k<1>>},
    {"aten.special_scaled_modified_bessel_k0.default", of_x<compose_scaled_k<0>>},
    {"aten.special_scaled_modified_bessel_k1.default", of_x<compose_scaled_k<1>>},
    {"aten.special_bessel_j0.default", composed_in_f64<compose_j<0>>},
    {"aten.special_bessel_j1.default", composed_in_f64<compose_j<1>>},
    {"aten.special_bessel_y0.default", composed_in_f64<compose_y<0>>},
    {"aten.special_bessel_y1.default", composed_in_f64<compose_y<1>>},
    {"aten.special_spherical_bessel_j0.default", of_x<compose_spherical_j0>},
    {"aten.special_airy_ai.default", of_x<compose_airy>},
};

}  // namespace

Rows bessel_rows() { return kRows; }

}  // namespace kiln::import
