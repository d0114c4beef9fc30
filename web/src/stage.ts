// The three.js scene: the character made of its own shapes, ground, light, and a camera that follows it.
// World: z up, metres, as in the simulation.
import * as THREE from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";
import type { SceneMessage, ShapeData, Target } from "./protocol";

THREE.Object3D.DEFAULT_UP.set(0, 0, 1);

const kBackground = 0x10161d;
const kGroundTile = 4; // m, one period of the ground's pattern
const kTrailPoints = 240;
const kContactColour = new THREE.Color(0xff6a3d);

// What a machine that cannot draw fast enough is spared, step by step.
const kQualities = [
  { resolution: 2, shadow: 2048, soft: true, anisotropy: 8 },
  { resolution: 1, shadow: 1024, soft: true, anisotropy: 4 },
  { resolution: 0.75, shadow: 1024, soft: false, anisotropy: 2 },
  { resolution: 0.5, shadow: 512, soft: false, anisotropy: 1 },
];
const kSlowFrame = 1 / 22; // s
const kPatience = 1; // s of slow frames before the quality goes down
const kFirstFrames = 4; // shaders are compiled in them

// What the panels cover of the canvas, px.
export interface Insets {
  left: number;
  right: number;
  top: number;
  bottom: number;
}

export class Stage {
  private showsContacts = false;
  private forces: Float32Array = new Float32Array();
  private readonly renderer: THREE.WebGLRenderer;
  private readonly scene = new THREE.Scene();
  private readonly camera = new THREE.PerspectiveCamera(38, 1, 0.05, 120);
  private readonly controls: OrbitControls;
  private readonly sun = new THREE.DirectionalLight(0xfff1dd, 2.6);
  private readonly ground = makeGround();
  private readonly trail = makeTrail();
  private readonly character = new THREE.Group();
  private pillar: THREE.Mesh | null = null;
  private readonly place = makePlace();
  private bodies: { group: THREE.Group; materials: THREE.MeshStandardMaterial[] }[] = [];
  private readonly followed = new THREE.Vector3(0, 0, 0.9);
  private readonly root = new THREE.Vector3(0, 0, 0.9);
  private insets: Insets = { left: 0, right: 0, top: 0, bottom: 0 };
  private distanceSet = false;
  private size = { width: 1, height: 1 };
  private trailLength = 0;
  private meanElapsed = 0;
  private framesAtQuality = 0;
  private secondsAtQuality = 0;
  private stale = true;
  private readonly drawnPosition = new THREE.Vector3();

  // Throws if the browser has no WebGL.
  // quality: 0 is the best, kQualities has the others; it only goes down from there.
  constructor(
    private readonly canvas: HTMLCanvasElement,
    private readonly reducedMotion: () => boolean,
    private quality: number,
  ) {
    this.quality = Math.min(Math.max(Math.trunc(quality) || 0, 0), kQualities.length - 1);
    this.renderer = new THREE.WebGLRenderer({ canvas, antialias: this.quality < 2, powerPreference: "high-performance" });
    this.renderer.shadowMap.enabled = true;
    this.renderer.toneMapping = THREE.ACESFilmicToneMapping;
    this.renderer.toneMappingExposure = 1.15;

    this.scene.background = new THREE.Color(kBackground);
    this.scene.fog = new THREE.Fog(kBackground, 9, 32);
    this.scene.add(new THREE.HemisphereLight(0xbcd3ee, 0x2a2f36, 1.7));
    this.sun.castShadow = true;
    this.sun.shadow.radius = 5;
    this.sun.shadow.normalBias = 0.02;
    Object.assign(this.sun.shadow.camera, { left: -2.6, right: 2.6, top: 2.6, bottom: -2.6, near: 0.5, far: 14 });
    this.scene.add(this.sun, this.sun.target);

    const rim = new THREE.DirectionalLight(0x7fb6ff, 0.9);
    rim.position.set(-3, 4, 2);
    this.scene.add(rim);

    this.scene.add(this.ground, this.trail, this.character, this.place);
    this.applyQuality();

    this.controls = new OrbitControls(this.camera, canvas);
    this.controls.enableDamping = !this.reducedMotion();
    this.controls.dampingFactor = 0.12;
    this.controls.enablePan = false;
    this.controls.minDistance = 1.2;
    this.controls.maxDistance = 14;
    this.controls.minPolarAngle = 0.15;
    this.controls.maxPolarAngle = Math.PI / 2 - 0.03; // not under the ground
  }

  setScene(message: SceneMessage): void {
    for (const { group } of this.bodies) {
      this.character.remove(group);
      group.traverse((object) => {
        if (object instanceof THREE.Mesh) object.geometry.dispose();
      });
    }
    this.bodies = message.bodies.map((body) => {
      const group = new THREE.Group();
      const materials: THREE.MeshStandardMaterial[] = [];
      for (const shape of body.shapes) {
        const mesh = makeShape(shape);
        materials.push(mesh.material);
        group.add(mesh);
      }
      this.character.add(group);
      return { group, materials };
    });
    if (this.pillar) {
      this.scene.remove(this.pillar);
      this.pillar.geometry.dispose();
    }
    this.pillar = makeShape({ ...message.target, pos: [0, 0, 0], rot: [0, 0, 0, 1], rgba: [0.86, 0.55, 0.27, 1] });
    this.pillar.visible = false;
    this.scene.add(this.pillar);
    this.followed.set(0, 0, message.stand_height);
    this.controls.target.copy(this.followed);
    this.clearTrail();
  }

  resize(width: number, height: number, insets: Insets): void {
    this.insets = insets;
    this.renderer.setPixelRatio(Math.min(window.devicePixelRatio, kQualities[this.quality]!.resolution));
    this.renderer.setSize(width, height, false);
    this.size = { width, height };
    this.stale = true;
    const free = {
      width: Math.max(width - insets.left - insets.right, 80),
      height: Math.max(height - insets.top - insets.bottom, 80),
    };
    this.camera.aspect = width / height;
    // the middle of what no panel covers is where the character stands
    this.camera.setViewOffset(width, height, (insets.right - insets.left) / 2, (insets.bottom - insets.top) / 2, width,
      height);
    this.camera.updateProjectionMatrix();
    if (!this.distanceSet) {
      // the whole body fits in the free part
      const needed = Math.max(2.2 / (free.height / height), 1.9 / (free.width / height));
      const distance = Math.min(Math.max(needed / (2 * Math.tan((this.camera.fov * Math.PI) / 360)), 3.2), 13);
      this.camera.position.copy(this.controls.target).add(
        new THREE.Vector3(0.74, -0.62, 0.26).normalize().multiplyScalar(distance));
    }
  }

  // The user has chosen a view: keep it when the window changes.
  keepView(): void {
    this.distanceSet = true;
  }

  clearTrail(): void {
    this.trailLength = 0;
    this.trail.geometry.setDrawRange(0, 0);
    this.stale = true;
  }

  setPose(poses: Float32Array, forces: Float32Array): void {
    this.bodies.forEach(({ group }, i) => {
      group.position.fromArray(poses, 7 * i);
      group.quaternion.fromArray(poses, 7 * i + 3);
    });
    this.root.fromArray(poses, 0);
    this.forces = forces;
    this.tintContacts();
  }

  // Where the character is bound for.
  setTarget(target: Target | null): void {
    for (const [mesh, kind] of [[this.pillar, "pillar"], [this.place, "place"]] as const) {
      if (!mesh) continue;
      mesh.visible = target?.kind === kind;
      if (!target || !mesh.visible) continue;
      mesh.position.fromArray(target.pose, 0);
      mesh.quaternion.fromArray(target.pose, 3);
    }
    this.stale = true;
  }

  // Bodies that touch something glow by the force.
  showContacts(on: boolean): void {
    this.showsContacts = on;
    this.tintContacts();
  }

  private tintContacts(): void {
    this.bodies.forEach(({ materials }, i) => {
      const glow = this.showsContacts ? Math.min(Math.sqrt((this.forces[i] ?? 0) / 600), 1) : 0;
      for (const material of materials) material.emissiveIntensity = glow;
    });
    this.stale = true;
  }

  addTrailPoint(x: number, y: number): void {
    const positions = this.trail.geometry.getAttribute("position") as THREE.BufferAttribute;
    const array = positions.array as Float32Array;
    if (this.trailLength === kTrailPoints) array.copyWithin(0, 3);
    else ++this.trailLength;
    array.set([x, y, 0.004], 3 * (this.trailLength - 1));
    positions.needsUpdate = true;
    this.trail.geometry.setDrawRange(0, this.trailLength);
  }

  // Draws if anything has changed since the last time. elapsed: s on the display since the last call.
  render(elapsed: number): void {
    this.follow(elapsed);
    this.controls.update();
    if (!this.stale && this.camera.position.distanceToSquared(this.drawnPosition) < 1e-8) return;
    this.stale = false;
    this.drawnPosition.copy(this.camera.position);
    this.renderer.render(this.scene, this.camera);
    this.adapt(elapsed);
  }

  private adapt(elapsed: number): void {
    if (++this.framesAtQuality <= kFirstFrames) return;
    this.secondsAtQuality += elapsed;
    this.meanElapsed = this.framesAtQuality === kFirstFrames + 1 ? elapsed : 0.9 * this.meanElapsed + 0.1 * elapsed;
    if (this.secondsAtQuality < kPatience || this.meanElapsed < kSlowFrame) return;
    if (this.quality + 1 >= kQualities.length) return;
    ++this.quality;
    this.framesAtQuality = this.secondsAtQuality = 0;
    this.applyQuality();
    this.resize(this.size.width, this.size.height, this.insets);
  }

  private applyQuality(): void {
    const { shadow, soft, anisotropy } = kQualities[this.quality]!;
    this.sun.shadow.mapSize.set(shadow, shadow);
    this.sun.shadow.map?.dispose();
    this.sun.shadow.map = null;
    this.renderer.shadowMap.type = soft ? THREE.PCFShadowMap : THREE.BasicShadowMap;
    const texture = this.ground.material.map!;
    texture.anisotropy = Math.min(anisotropy, this.renderer.capabilities.getMaxAnisotropy());
    texture.needsUpdate = true;
    // blurring what lies under the panels costs a slow machine more than the picture
    document.body.classList.toggle("plain", this.quality > 0);
  }

  // Of the root, px on the page.
  rootOnScreen(): { x: number; y: number } {
    const p = this.root.clone().project(this.camera);
    const box = this.canvas.getBoundingClientRect();
    return { x: box.left + ((p.x + 1) / 2) * box.width, y: box.top + ((1 - p.y) / 2) * box.height };
  }

  private follow(elapsed: number): void {
    // sideways closely, up and down lazily: steps should not rock the picture
    const share = (rate: number) => (this.reducedMotion() ? 1 : 1 - Math.exp(-rate * elapsed));
    const before = this.followed.clone();
    this.followed.x += share(6) * (this.root.x - this.followed.x);
    this.followed.y += share(6) * (this.root.y - this.followed.y);
    this.followed.z += share(1.5) * (Math.max(0.55, this.root.z) - this.followed.z);
    this.camera.position.add(this.followed.clone().sub(before));
    this.controls.target.copy(this.followed);

    this.sun.target.position.set(this.root.x, this.root.y, 0.6);
    this.sun.position.set(this.root.x + 2.4, this.root.y - 1.6, 5.6);
    // moved by whole periods, the ground looks as if it stood still
    this.ground.position.set(
      Math.round(this.root.x / kGroundTile) * kGroundTile, Math.round(this.root.y / kGroundTile) * kGroundTile, 0);
  }
}

function makeShape(shape: ShapeData): THREE.Mesh<THREE.BufferGeometry, THREE.MeshStandardMaterial> {
  const [a, b, c] = shape.size;
  let geometry: THREE.BufferGeometry;
  switch (shape.kind) {
    case "sphere": geometry = new THREE.SphereGeometry(a, 28, 20); break;
    case "box": geometry = new THREE.BoxGeometry(2 * a, 2 * b, 2 * c); break;
    // three's lie along y, ours along z
    case "capsule": geometry = new THREE.CapsuleGeometry(a, 2 * b, 10, 24).rotateX(Math.PI / 2); break;
    case "cylinder": geometry = new THREE.CylinderGeometry(a, a, 2 * b, 36).rotateX(Math.PI / 2); break;
  }
  const [red, green, blue, alpha] = shape.rgba;
  const material = new THREE.MeshStandardMaterial({
    color: new THREE.Color().setRGB(red, green, blue, THREE.SRGBColorSpace),
    emissive: kContactColour,
    emissiveIntensity: 0,
    roughness: 0.62,
    metalness: 0.04,
    transparent: alpha < 1,
    opacity: alpha,
  });
  const mesh = new THREE.Mesh(geometry, material);
  mesh.position.fromArray(shape.pos);
  mesh.quaternion.fromArray(shape.rot);
  mesh.castShadow = mesh.receiveShadow = true;
  return mesh;
}

// Squares of a metre in two shades and a stronger line each four metres, so that speed can be read off the ground.
function makeGround(): THREE.Mesh<THREE.PlaneGeometry, THREE.MeshLambertMaterial> {
  const size = 1024;
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  const pen = canvas.getContext("2d")!;
  const metre = size / kGroundTile;
  for (let x = 0; x < kGroundTile; ++x)
    for (let y = 0; y < kGroundTile; ++y) {
      pen.fillStyle = (x + y) % 2 ? "#39434f" : "#333c47";
      pen.fillRect(x * metre, y * metre, metre, metre);
    }
  pen.fillStyle = "#4a5664";
  for (let i = 0; i <= kGroundTile; ++i) {
    pen.fillRect(i * metre - 1.5, 0, 3, size);
    pen.fillRect(0, i * metre - 1.5, size, 3);
  }
  pen.fillStyle = "#67778a";
  for (const edge of [0, size]) {
    pen.fillRect(edge - 4, 0, 8, size);
    pen.fillRect(0, edge - 4, size, 8);
  }
  const extent = 80;
  const texture = new THREE.CanvasTexture(canvas);
  texture.colorSpace = THREE.SRGBColorSpace;
  texture.wrapS = texture.wrapT = THREE.RepeatWrapping;
  texture.repeat.set(extent / kGroundTile, extent / kGroundTile);
  const ground = new THREE.Mesh(
    new THREE.PlaneGeometry(extent, extent), new THREE.MeshLambertMaterial({ map: texture }));
  ground.receiveShadow = true;
  return ground;
}

// A ring on the ground.
function makePlace(): THREE.Mesh {
  const ring = new THREE.Mesh(
    new THREE.RingGeometry(0.42, 0.5, 48), new THREE.MeshBasicMaterial({ color: 0xf2b35d, transparent: true, opacity: 0.9 }));
  const lifted = ring.geometry.getAttribute("position") as THREE.BufferAttribute;
  for (let i = 0; i < lifted.count; ++i) lifted.setZ(i, 0.006);
  ring.visible = false;
  return ring;
}

// Where the root has been, drawn on the ground.
function makeTrail(): THREE.Line {
  const geometry = new THREE.BufferGeometry();
  geometry.setAttribute("position", new THREE.BufferAttribute(new Float32Array(3 * kTrailPoints), 3));
  geometry.setDrawRange(0, 0);
  const line = new THREE.Line(
    geometry, new THREE.LineBasicMaterial({ color: 0x5ad1c0, transparent: true, opacity: 0.55 }));
  line.frustumCulled = false;
  return line;
}
